"""The table of a chip's physics, and the command that prints it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from photonloop.simulator.parameters import PRESET_FOLDER, load_chip, preset_names
from photonloop.simulator.physics_table import comments, physics_table

pytestmark = pytest.mark.slow


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("preset", ["ideal", "soi", "harsh", "lab", "tin", "undercut"])
def test_every_value_of_a_preset_is_in_the_table_with_its_source(preset: str) -> None:
    chip = load_chip(preset)
    rows = {f"{row.effect}.{row.parameter}": row for row in physics_table(preset, chip)}
    stated = comments((PRESET_FOLDER / f"{preset}.toml").read_text(encoding="utf-8"), "")
    assert len(stated) > 15
    for key, source in stated.items():
        assert rows[key].source == source != ""
        effect, _, name = key.partition(".")
        assert rows[key].value == getattr(getattr(chip, effect), name)
    for row in rows.values():
        assert row.source or row.value is None, f"{row.parameter} has a value but no source"
        if row.value is not None and row.effect not in {"chip", "mesh", "limits"}:
            assert row.meaning, f"{row.effect}.{row.parameter} has no description"


def test_units_and_bounds() -> None:
    rows = {f"{row.effect}.{row.parameter}": row for row in physics_table("soi", load_chip("soi"))}
    assert (rows["heater.pi_power_w"].unit, rows["heater.pi_power_w"].bounds) == ("W", "(0, 10]")
    assert rows["laser.rin_db_per_hz"].unit == "dB/Hz"
    assert rows["temperature.phase_rad_per_k"].unit == "rad/K"
    assert rows["photodiode.responsivity_a_per_w"].unit == "A/W"
    assert (rows["tap.fraction"].unit, rows["tap.fraction"].bounds) == ("", "[0, 1)")
    assert rows["loss.mzi_db"].value is None


def test_a_chip_file_is_the_source_of_its_values(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'preset = "soi"\nports = 8 # "eight" # it has\nloss.mzi_db = 0.5\ntap = { fraction = 0.2 } # measured\n'
        '[heater]\nrise_s = 5e-6 # [P] "our #3"\n[[faults]]\nkind = "stuck_channel"\nchannel = 3\nvolts = 2.5\n'
    )
    rows = {f"{row.effect}.{row.parameter}": row for row in physics_table(str(path), load_chip(path))}
    assert rows["loss.mzi_db"].source == "chip file mine.toml"
    assert rows["chip.ports"].source == '"eight" # it has'
    assert rows["tap.fraction"].source == "measured"
    assert rows["heater.rise_s"].source == '[P] "our #3"'
    assert rows["heater.fall_s"].source.startswith("[P] Jacques 2019")
    assert rows["faults.faults.0"].value == "stuck_channel channel 3, volts 2.5"


def test_all_presets_are_tested() -> None:
    assert set(preset_names()) == {"ideal", "soi", "harsh", "lab", "tin", "undercut"}


def test_the_simulator_prints_the_table() -> None:
    done = run("-m", "photonloop.simulator", "--physics", "--chip", "soi")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"pi_power_w +0.0248 +W +\[P\] Harris 2014", done.stdout)
    assert "At random phases the heaters take 202 W" in done.stdout
    assert "warning: The heaters take 202 W on average, 247 W/cm²" in done.stdout
    table = json.loads(run("-m", "photonloop.simulator", "--physics", "--json", "--chip", "undercut").stdout)
    assert table["warnings"] == [] and table["feasibility"]["power_w"] == pytest.approx(5.06, rel=0.01)


def test_the_command_prints_the_table_for_virtual_chips_only() -> None:
    command = ("-m", "photonloop", "describe")
    done = run(*command, "sim:soi", "--physics", "--json")
    assert done.returncode == 0
    rows = json.loads(done.stdout)["physics"]
    assert {"effect", "parameter", "value", "unit", "bounds", "meaning", "source"} == set(rows[0])
    assert any(row["parameter"] == "rise_s" and row["unit"] == "s" and "Jacques" in row["source"] for row in rows)
    assert "crosstalk" in run(*command, "sim:ideal", "--physics").stdout
    other = run(*command, "tcp://127.0.0.1:1", "--physics")
    assert other.returncode == 1
    assert other.stderr.count("\n") == 1
    assert "--physics applies to virtual chips (sim…) only, but the device is tcp://127.0.0.1:1" in other.stderr
