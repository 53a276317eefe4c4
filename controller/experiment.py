"""The experiment file: data, network, training method and device, as validated TOML.

`load_experiment` reads a file, applies `--set` options and fills in defaults. `as_toml` writes an experiment with every
default, so that a run folder holds a complete record.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from photonloop.controller.data.datasets import DataSpec
from photonloop.controller.data.encoding import EncodingSpec
from photonloop.protocols.config import ConfigError, read_toml, validate

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=10**9)]
_Share = Annotated[float, Field(ge=0, lt=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NetworkSpec(_Spec):
    """Cascaded layers: layer k is the mesh and the tap of stage k."""

    ports: Annotated[int, Field(ge=2, le=1024)] | None = None
    """Ports of the virtual chip that `sim…` starts. Default: as many as the features need. Other devices ignore it."""
    layers: Annotated[int, Field(ge=1, le=8)] = 1


class RuleSpec(_Spec):
    """The local objective of every layer."""

    name: Literal["prototype"] = "prototype"
    loss: Literal["cosine", "margin", "softmax"] = "softmax"
    margin: Annotated[float, Field(gt=0, le=1e4)] = 0.3
    """For `margin`: by how much the goodness of the true class should exceed the others (FFzero: 0.3)."""
    scale: Annotated[float, Field(gt=0, le=1e4)] = 20.0
    """For `softmax`: cosines are multiplied by this before the cross-entropy."""


class EstimatorSpec(_Spec):
    """How a descent direction is estimated from losses."""

    name: Literal["directional", "spsa"] = "spsa"
    probe_step_rad: _Positive | Literal["auto"] = "auto"
    """Probe step [rad]. spsa: change of every phase · directional: length per group of phases · auto: measured."""
    directions: Annotated[int, Field(ge=1, le=128)] = 4
    """Directions probed per update; each costs two settings."""


class OptimizerSpec(_Spec):
    """How variables are updated from a direction."""

    name: Literal["sgd", "momentum", "adam"] = "adam"
    rate: Annotated[float, Field(gt=0, le=1e6)] = 0.02
    """Learning rate [rad for `adam`, rad² per unit of loss for the others]."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """`cosine`: from `rate` down to zero over each layer's updates."""
    momentum: _Share = 0.9
    beta1: _Share = 0.9
    beta2: _Share = 0.999
    epsilon: _Positive = 1e-8


class TrainingSpec(_Spec):
    """Length and schedule of the training."""

    epochs: _Count = 1000
    """Passes over the training set, for each layer."""
    batch: _Count = 128
    """Samples per update. The samples of an incomplete last batch are left out in that epoch."""
    pipelined: bool = True
    """Probe for update n + 1 around the variables before update n: the device works while update n is computed."""
    evaluate_every: _Count = 20
    """Epochs between measurements of the accuracies."""
    checkpoint_s: _Positive = 10.0
    """Time between checkpoints [s]. Losses measured in between are kept in a journal, so nothing is lost."""


class Experiment(_Spec):
    """All settings of a training session."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of prototypes, starting variables, probes and shuffles, and of the virtual chip if `sim…` starts one."""
    device: str = "sim:soi"
    variables: Literal["heater", "phase"] = "heater"
    """What is trained. heater: nominal heater phases, on any device · phase: calibrated phases, which wrap at 2π."""
    calibration: str | None = None
    """For `phase`: the calibration of the device, as `photonloop calibrate` writes it."""
    data: DataSpec
    encoding: EncodingSpec = EncodingSpec()
    network: NetworkSpec = NetworkSpec()
    rule: RuleSpec = RuleSpec()
    estimator: EstimatorSpec = EstimatorSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    training: TrainingSpec = TrainingSpec()


def load_experiment(path: Path, overrides: list[str] | None = None, device: str | None = None) -> Experiment:
    """Return the experiment in the file at `path`, with `overrides` ("training.epochs=5") and `device` applied.

    Raises
    ------
    ConfigError
        The file or an override is invalid; the message names the first invalid key.
    """
    tables = read_toml(path, "experiment file")
    for override in overrides or []:
        _put(tables, override)
    if device is not None:
        tables["device"] = device
    return validate(Experiment, tables, str(path))


def as_toml(experiment: Experiment) -> str:
    """Return `experiment` as TOML with every default; None values are left out."""
    lines: list[str] = []
    tables = experiment.model_dump(exclude_none=True)
    lines += [f"{key} = {_literal(value)}" for key, value in tables.items() if not isinstance(value, dict)]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *(f"{key} = {_literal(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _put(tables: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override!r} is not of the form key=value, as in --set training.epochs=5")
    path = key.strip().split(".")
    *tables_in, last = path
    for name in tables_in:
        inner = tables.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override!r}: {name!r} is a value, not a table")
        tables = inner
    tables[last] = _value(text.strip(), is_text=_takes_text(path))


def _value(text: str, *, is_text: bool) -> Any:
    """Return the value of a `--set` option: TOML, or text without quotes, as in rule.loss=cosine and name=2024."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"]
    # Text like 2024, true or 1e3 parses as another TOML type. More than one key: the text contains a line end.
    return text if len(parsed) > 1 or (is_text and not isinstance(value, str)) else value


def _takes_text(path: list[str]) -> bool:
    """Return whether the key at `path` of an experiment accepts arbitrary text."""
    model: Any = Experiment
    for name in path[:-1]:
        field = model.model_fields.get(name)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return False
        model = field.annotation
    field = model.model_fields.get(path[-1])
    return field is not None and str in (field.annotation, *get_args(field.annotation))


def _literal(value: Any) -> str:
    # JSON strings, numbers, booleans and lists of them are valid TOML.
    return json.dumps(value, ensure_ascii=False)
