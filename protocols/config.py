"""Read TOML files into validated pydantic models, with one plain sentence per error.

Experiment files, chip files and station files are all read by this module, which turns pydantic's list of errors into
one sentence for the user.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class ConfigError(ValueError):
    """A file or option that cannot be used as written; the message is one plain sentence."""


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the tables of the TOML file at `path`; `what` is the kind of file, for error messages.

    Raises
    ------
    ConfigError
        The file is missing, unreadable or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{what} {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{what} {path} is not TOML: {error}") from None


def validate(model: type[Model], tables: dict[str, Any], where: str) -> Model:
    """Return `tables` as `model`; `where`, such as the path of the file, begins the error message.

    Raises
    ------
    ConfigError
        For the first error: an unknown key with the most similar known one, or a value and its bound.
    """
    try:
        return model.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_sentence(model, error)}") from None


def suggestion(word: str, known: list[str]) -> str:
    """Return "; did you mean 'x'?" for the known word most similar to `word`, or "; known: …" if none is similar."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    # An unknown key often explains a missing one, so it is reported first.
    first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    # The location also contains type names of unions, such as "constrained-float" or "literal['auto']", which are no
    # identifiers.
    path = [part for part in first["loc"] if isinstance(part, int) or part.isidentifier()]
    if first["type"] == "extra_forbidden":
        return f"unknown key {_dotted(first['loc'])!r}" + suggestion(str(first["loc"][-1]), _keys_at(model, path[:-1]))
    if first["type"] == "missing":
        return f"key {_dotted(path)!r} is missing"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not path and first["type"] == "value_error":  # a check of the whole file names the key itself
        return message
    value = first["input"]
    shown = "" if isinstance(value, dict | BaseModel) else f" is {value!r}, but"
    return f"{_dotted(path) or 'the file'}{shown} {message[0].lower()}{message[1:]}"


def _dotted(path: Any) -> str:
    return ".".join(str(part) for part in path)


def _keys_at(model: type[BaseModel], path: list[Any]) -> list[str]:
    """Return the keys of the model at `path`."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None:
            break
        candidates = [field.annotation, *get_args(field.annotation)]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            break
        model = nested[0]
    return list(model.model_fields)
