"""Presets and chip files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad

from photonloop.protocols.config import ConfigError
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.engine.levels import levels
from photonloop.simulator.parameters import PRESET_FOLDER, load_chip, preset_names
from photonloop.simulator.physics.mesh import clements
from photonloop.simulator.physics.nonlinearity import mean_transmitted


def test_presets_load_with_defaults() -> None:
    assert set(preset_names()) == {"ideal", "soi", "harsh", "lab", "tin", "undercut"}
    for name in preset_names():
        chip = load_chip(name)
        assert (chip.name, chip.ports, chip.stages, chip.seed) == (name, 64, 2, 0)
    assert load_chip("soi", ports=9, stages=1, seed=5).model_dump(include={"ports", "stages", "seed"}) == {
        "ports": 9,
        "stages": 1,
        "seed": 5,
    }


def test_a_phase_of_two_pi_is_within_the_limits_of_every_heater() -> None:
    for name in preset_names():
        chip = load_chip(name)
        worst_w = 2 * chip.heater.pi_power_w * (1 + 4 * chip.heater.pi_power_sigma)
        assert worst_w < chip.limits.power_w
        assert (worst_w * chip.heater.resistance_ohm) ** 0.5 < chip.dac.max_v
        assert chip.limits.mean_power_w > chip.heater.pi_power_w


def test_every_value_of_a_preset_has_a_source() -> None:
    for name in preset_names():
        for line in (PRESET_FOLDER / f"{name}.toml").read_text().splitlines():
            if "=" in line and not line.startswith("#"):
                assert "#" in line, f"{name}: {line}"


def test_a_chip_file_changes_only_the_values_in_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "soi"\nports = 16\n[loss]\nmzi_db = 0.2\n[photodiode]\ndark_a = 0\n')
    chip, soi = load_chip(path), load_chip("soi")
    assert chip.name == "mine"
    assert (chip.ports, chip.loss.mzi_db, chip.photodiode.dark_a) == (16, 0.2, 0.0)
    assert chip.loss.mzi_sigma_db == soi.loss.mzi_sigma_db
    assert chip.heater == soi.heater
    assert load_chip(str(path), ports=4).ports == 4


def test_a_chip_file_without_a_preset_is_an_ideal_chip(tmp_path: Path) -> None:
    path = tmp_path / "plain.toml"
    path.write_text("ports = 3\n")
    chip = load_chip(path)
    flaws = (
        chip.coupler.angle_sigma_rad,
        chip.heater.pi_power_sigma,
        chip.loss.mzi_db,
        chip.photodiode.bandwidth_hz,
        chip.dac.bits,
    )
    assert not any(flaws)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'preset = "soy"',
            r"preset 'soy' is not a preset: there are harsh, ideal, lab, soi, tin, undercut; did you mean 'soi'\?",
        ),
        ("prots = 3", r"unknown key 'prots'; did you mean 'ports'\?"),
        ("[heater]\npi_pwer_w = 1", r"unknown key 'heater.pi_pwer_w'; did you mean 'pi_power_w'\?"),
        ("ports = 1", "ports is 1, but should be greater than or equal to 2"),
        ("ports = 2000", "ports is 2000, but should be less than or equal to 1024"),
        ("stages = 9", "stages is 9"),
        ("[tap]\nfraction = 1.0", "tap.fraction is 1.0, but should be less than 1"),
        ("[loss]\nmzi_db = -0.1", "loss.mzi_db is -0.1, but should be greater than or equal to 0"),
        ("[heater]\nresistance_ohm = nan", "heater.resistance_ohm is nan"),
        ("[dac]\nrange_v = 5.0", "range_v 5 V is less than max_v 10.8 V"),
        ('[mesh]\ntopology = "ring"', "mesh.topology is 'ring'"),
        ("[dac]\ninl_lsb = 2.0", "inl_lsb is 2, but a DAC with bits 0 has no LSB"),
        (
            "[crosstalk]\nfraction = 0.2\nexponent = 3.0",
            "a share of 1.6 at the smallest pitch, 5e-05 m",
        ),
        ("[crosstalk]\nfraction = 0.5", "crosstalk.fraction is 0.5, but should be less than or equal to 0.2"),
        ("[laser]\nrin_db_per_hz = 3.0", "laser.rin_db_per_hz is 3.0, but should be less than or equal to 0"),
        ('[[faults]]\nkind = "dead_heatr"\nchannel = 3', "faults.0.kind is 'dead_heatr'"),
        ('[[faults]]\nkind = "dead_heater"', "faults.0 dead_heater needs channel"),
        ('[[faults]]\nkind = "laser_off"\nchannel = 3', "faults.0 laser_off does not take channel"),
        ('[[faults]]\nkind = "laser_off"\nat = 3', r"unknown key 'faults.0.at'; did you mean 'at_s'\?"),
        ("ports = ", "is not TOML"),
    ],
)
def test_an_invalid_chip_file_is_refused_with_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError, match=words) as caught:
        load_chip(path)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("sio", "chip 'sio' is not a preset: there are harsh, ideal, lab, soi, tin, undercut"),
        ("nowhere/chip.toml", "chip file nowhere/chip.toml does not exist"),
    ],
)
def test_a_missing_preset_or_file_is_refused(source: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_chip(source)


def test_mean_power_behind_the_nonlinearity() -> None:
    """The closed form against the mean over exponentially distributed intensities, by quadrature."""
    for mean, gain, bias in ((1.0, 0.157, np.pi), (0.3, 2.0, 0.4), (2.0, 0.5, 1.5)):

        def transmitted(i: float, mean: float = mean, gain: float = gain, bias: float = bias) -> float:
            return np.exp(-i / mean) / mean * 0.9 * i * np.cos((gain * i + bias) / 2) ** 2

        assert mean_transmitted(mean, 0.1, gain, bias) == pytest.approx(quad(transmitted, 0, 60 * mean, limit=400)[0], rel=1e-6)


def test_full_scale_and_gain_follow_the_expected_power() -> None:
    first, second = levels(load_chip("soi"), clements(64))
    lit_a = 0.01 / 64
    kept = 10 ** (-0.11 / 10)  # transmission of a shifter, whose arm has half of the power
    lost = kept * (10 ** (-0.04 / 10) * ((1 + kept) / 2) ** 2) ** 63
    assert first.full_scale_a == pytest.approx(8 * lit_a * lost * 0.1 + 1e-9)
    assert first.gain_rad == pytest.approx(0.05 * 3.141592653589793 / (lost * 0.9))
    assert second.full_scale_a == pytest.approx(8 * lit_a * lost * mean_second(lost * 0.9) + 1e-9, rel=1e-6)
    assert first.thermal_a2 == pytest.approx(4 * 1.380649e-23 * 300 * 1e5 * first.full_scale_a / 1.0)
    ideal = levels(load_chip("ideal"), clements(64))
    assert [level.full_scale_a for level in ideal] == [0.01, 0.01]
    assert not any(level.saturates for level in ideal)


def mean_second(intensity: float) -> float:
    """Mean intensity behind the first nonlinearity if g is given for the mean intensity before it."""
    return mean_transmitted(1.0, 0.1, 0.05 * 3.141592653589793, 3.141592653589793) * intensity


@pytest.mark.parametrize("dark", ["[nonlinearity]\ngain_rad = 0.0\n", "[loss]\nmzi_db = 10.0\n[photodiode]\ndark_a = 0.0\n"])
def test_a_chip_with_a_dark_stage_is_refused(tmp_path: Path, dark: str) -> None:
    path = tmp_path / "dark.toml"
    path.write_text('preset = "soi"\n' + dark, encoding="utf-8")
    with pytest.raises(ConfigError, match="of the chip gets no light"):
        Chip(load_chip(path))
