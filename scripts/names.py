"""Names of the code: what is named twice, retired identifiers that are left, long functions, long files.

    python scripts/names.py [--json]

Exit code 1 if a class or module has the name of another one, if a retired identifier is left, or if a file is too long.
`docs/glossary.md` has the terms; `RETIRED` has the identifiers that they replaced.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("photonloop", "controller", "drivers", "protocols", "simulator", "scripts")
LONGEST_FUNCTION = 50
LONGEST_FILE = 400

LONG_FILES = {"simulator/kernels.py": "numba's disk cache does not notice a change in another file"}
"""Files that are longer, each with its reason."""

SAME_BY_DESIGN = {
    "__init__": "every package has one",
    "__main__": "every program has one",
    "device": "`protocols/device.py` is the contract, the folder `controller/device/` is the controller's side of it",
}
"""Module names that may be used twice, each with its reason."""

RETIRED = frozenset(
    [
        "StagedRows",
        "stage_inputs",
        "max_staged_bytes",
        "StageBody",
        "Desk",
        "Jobs",
        "rush",
        "Looking",
        "Pace",
        "Admission",
        "admits",
        "Window",
        "Sharing",
        "Shared",
        "DeviceLink",
        "State",
        "fold",
        "Box",
        "stage_box",
        "drive_step",
        "drive_step_rad",
        "dac_step_v",
        "weigh",
        "reach",
        "step_of",
        "per_phase",
        "streams",
        "BrokenError",
        "SilenceError",
        "StrangerError",
        "take_unasked",
        "send_unheard",
        "until_taken",
        "ends_sent",
        "ends_got",
        "known_by",
        "Line",
        "Wire",
        "Link",
        "SetUp",
        "arm",
        "armed",
        "ground",
        "to_zero",
        "drop",
        "darken",
        "one_safe",
        "gauges",
        "watching",
        "budget",
        "way",
        "felt",
        "felt_w",
        "shine",
        "World",
        "fitting",
        "identity_of",
        "archives",
        "staging",
        "window",
        "looking",
        "admission",
        "payload",
        "desk",
        "pace",
        "bench_forward",
        "bench_loop",
        "bench_lab",
        "bench_transport",
    ]
)
"""Identifiers that the glossary replaced: classes, functions, methods, attributes, parameters, variables, modules."""

_PATH = re.compile(
    r"(?<![\w/.])((?:controller|drivers|protocols|simulator|scripts|tests|examples)/[\w/.-]*?(?:\.(?:py|toml|md)|/))(?![\w/])"
)

RETIRED_IN_TEXT = ("photonloop bench ", "[bench]", "stage_inputs", "max_staged_bytes")
"""Commands and keys that must not be left in documents and TOML files."""


def source_files() -> list[Path]:
    """Return the Python files of the project, tests left out, without following the links of the package."""
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if not _is_linked(path))


def _is_linked(path: Path) -> bool:
    return any(part.is_symlink() for part in path.parents if part != ROOT and ROOT in part.parents)


def named_twice(files: Iterable[Path]) -> dict[str, list[str]]:
    """Return public classes and modules whose name belongs to more than one thing, each with its places."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in files:
        name = path.parent.name if path.stem == "__init__" else path.stem
        if name not in SAME_BY_DESIGN:
            places[f"module {name}"].append(_short(path))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[f"class {node.name}"].append(_short(path))
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def retired_left(files: Iterable[Path]) -> list[str]:
    """Return every retired identifier in code, as "file:line name"."""
    found = []
    for path in files:
        if path == Path(__file__).resolve():
            continue
        if path.stem in RETIRED:
            found.append(f"{_short(path)}: {path.stem}")
        with tokenize.open(path) as source:
            found += [
                f"{_short(path)}:{token.start[0]} {token.string}"
                for token in tokenize.generate_tokens(source.readline)
                if token.type == tokenize.NAME and token.string.lstrip("_") in RETIRED
            ]
    return found


def retired_in_text() -> list[str]:
    """Return retired commands and keys that documents, examples and tables still have, as "file: text"."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    texts = [ROOT / name for name in tracked if name.endswith((".md", ".toml"))]
    return [
        f"{_short(path)}: {retired}"
        for path in texts
        if path.name not in {"glossary.md", "CHANGELOG.md"} and "decisions" not in path.parts
        for retired in RETIRED_IN_TEXT
        if retired in path.read_text(encoding="utf-8")
    ]


def missing_paths() -> list[str]:
    """Return files and folders that the documents name in full, from the top of the checkout, but that do not exist."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    named = {
        (document.name, path)
        for document in documents
        if document.name != "CHANGELOG.md"
        for path in _PATH.findall(document.read_text(encoding="utf-8"))
    }
    return [f"{document}: {path}" for document, path in sorted(named) if not (ROOT / path).exists()]


def long_functions(files: Iterable[Path]) -> list[tuple[str, str, int]]:
    """Return (file, function, lines) of functions that are longer than `LONGEST_FUNCTION`, the longest first."""
    found = [
        (_short(path), node.name, lines)
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := _lines(node)) > LONGEST_FUNCTION
    ]
    return sorted(found, key=lambda each: -each[2])


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, the docstring left out."""
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    doc = (first.end_lineno or first.lineno) - first.lineno + 1 if is_docstring else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - doc


def long_files(files: Iterable[Path]) -> list[tuple[str, int]]:
    """Return (file, lines) of files that are longer than `LONGEST_FILE`, the longest first."""
    lengths = [(_short(path), len(path.read_text(encoding="utf-8").splitlines())) for path in files]
    return sorted((each for each in lengths if each[1] > LONGEST_FILE), key=lambda each: -each[1])


def _short(path: Path) -> str:
    return str(path.resolve().relative_to(ROOT))


def main() -> int:
    """Print what was found; return 1 if something must be corrected."""
    parser = argparse.ArgumentParser(description="What is named twice, retired identifiers, long functions and files.")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    files = source_files()
    found: dict[str, Any] = {
        "files": len(files),
        "named_twice": named_twice(files),
        "retired": [*retired_left(files), *retired_in_text()],
        "missing_paths": missing_paths(),
        "long_functions": long_functions(files),
        "long_files": long_files(files),
    }
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(_report(found)))
    too_long = [name for name, _ in found["long_files"] if name not in LONG_FILES]
    return int(bool(found["named_twice"] or found["retired"] or found["missing_paths"] or too_long))


def _report(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['files']} files"
    yield f"named twice: {len(found['named_twice'])}"
    yield from (f"  {name}: {', '.join(where)}" for name, where in found["named_twice"].items())
    yield f"retired identifiers: {len(found['retired'])}"
    yield from (f"  {each}" for each in found["retired"])
    yield f"paths in documents that do not exist: {len(found['missing_paths'])}"
    yield from (f"  {each}" for each in found["missing_paths"])
    yield f"functions over {LONGEST_FUNCTION} lines, docstrings left out: {len(found['long_functions'])}"
    yield from (f"  {lines:4} {file} {name}" for file, name, lines in found["long_functions"])
    yield f"files over {LONGEST_FILE} lines: {len(found['long_files'])}"
    yield from (f"  {lines:4} {file} ({LONG_FILES.get(file, 'to be split')})" for file, lines in found["long_files"])


if __name__ == "__main__":
    sys.exit(main())
