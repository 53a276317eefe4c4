"""The code examples in docs/drivers.md run, and its lists are complete."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from photonloop.drivers.helpers.command_templates import TABLE_FOLDER
from photonloop.drivers.instrument import DriveSource
from photonloop.drivers.registry import driver_names
from photonloop.drivers.sources.scpi_source import ScpiSourceSettings
from photonloop.protocols.config import validate

PAGE = (Path(__file__).parents[2] / "docs" / "drivers.md").read_text(encoding="utf-8")


def test_the_example_driver_passes_the_example_test():
    driver, test = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "acme"}
    exec(compile(driver, "docs/drivers.md", "exec"), names)
    exec(compile(test, "docs/drivers.md", "exec"), names)
    assert isinstance(names["source"], DriveSource)


def test_the_example_table_is_valid():
    text = re.search(r"    \[\[instruments\]\]\n(?:    .*\n)+", PAGE)
    assert text
    tables = tomllib.loads(text[0].replace("\n    ", "\n").strip())
    validate(ScpiSourceSettings, tables["instruments"][0]["settings"], "docs/drivers.md")


def test_every_driver_and_every_table_is_listed():
    listed = set(re.findall(r"`([a-z0-9-]+)`", PAGE))
    assert set(driver_names()) <= listed
    assert {path.stem for path in TABLE_FOLDER.glob("*.toml")} <= listed
