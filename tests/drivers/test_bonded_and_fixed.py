"""Heaters on two bonded channels, fixed inputs, and the nominal values that a station file may add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_instruments import FakeClock, FakeLab, FakeSource, bench_of, tables

from photonloop.drivers.bench.bench_device import Bench
from photonloop.drivers.station.checks import problems
from photonloop.drivers.station.schema import Station
from photonloop.protocols.config import ConfigError, validate
from photonloop.protocols.errors import DeviceError


def opened(tmp_path: Path, change: Any) -> tuple[Bench, FakeLab, FakeClock]:
    lab = FakeLab(clock := FakeClock())
    return bench_of(lab, clock, tmp_path, change), lab, clock


# ---- bonded channels -------------------------------------------------------------------------------------------------


def bonded(stated: dict[str, Any]) -> None:
    """Eight heaters on sixteen channels, and no second stage."""
    stated["stages"] = stated["stages"][:1]
    stated["stages"][0]["heaters"]["channels"] = [[k, 15 - k] for k in range(8)]
    stated["limits"].update(max_a=0.04, max_w=0.1)


def test_bonded_channels_are_driven_alike(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path, bonded)
    assert bench.describe().channels == 8
    drive = np.linspace(1.0, 3.0, 8)
    lab.heaters.written.clear()
    bench.apply(drive)
    np.testing.assert_array_equal(lab.heaters.volts, [*drive, *drive[::-1]])
    assert [len(volts) for _, volts in lab.heaters.written] == [16]  # both channels of a heater in one call
    bench.evaluate(np.full((2, 8), 2.5), np.ones((1, 4)), "mesh0")
    np.testing.assert_array_equal(lab.heaters.volts, [*drive, *drive[::-1]])
    bench.safe()
    assert not lab.heaters.volts.any()


def test_bonded_channels_share_the_current(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path, bonded)
    limits = bench.describe().limits
    assert limits.current_a == (0.04,) * 8  # of a heater; one channel has 0.024 A
    assert limits.power_w == (0.1,) * 8
    assert {(limit.max_a, limit.max_w) for limit in lab.heaters.written_limits.values()} == {(0.02, 0.05)}
    drive = np.linspace(1.0, 3.0, 8)
    bench.apply(drive)
    np.testing.assert_allclose(bench.readback().amperes, 2 * drive / lab.heaters.ohm)  # the sum of both channels
    lab.heaters.ohm = 50.0
    clock.time_s += 2.0
    bench.watch()
    assert [fault.name for fault in bench.status().faults] == ["over_power"]
    assert not lab.heaters.volts.any()


def test_the_hardware_limits_of_bonded_channels_add_up(tmp_path: Path) -> None:
    def change(stated: dict[str, Any]) -> None:
        bonded(stated)
        stated["limits"].pop("max_a")

    bench, lab, _ = opened(tmp_path, change)
    assert bench.describe().limits.current_a == (0.048,) * 8
    assert lab.heaters.written_limits[0].max_a == 0.024


def test_bonded_channels_must_be_on_one_source(tmp_path: Path) -> None:
    stated = tables()
    stated["stages"][0]["heaters"]["channels"] = [["heaters:0", "modulators:3"], *range(1, 8)]
    stated["inputs"]["channels"] = [0, 1, 2]
    assert list(problems(Station.model_validate(stated))) == [
        "heater 0 of stage mesh0: heaters:0 and modulators:3 must be on one source to drive it together"
    ]
    stated["stages"][0]["heaters"]["channels"] = [[0, 0], *range(1, 8)]
    assert any("channel 0 of heaters is mapped twice" in problem for problem in problems(Station.model_validate(stated)))
    stated["stages"][0]["heaters"]["channels"] = [[0, 1, 2]]
    with pytest.raises(ConfigError, match="expected a list of exactly two channels that drive the same heater"):
        validate(Station, stated, "station")


# ---- fixed inputs ----------------------------------------------------------------------------------------------------


class DarkLab(FakeLab):
    """A chip whose light does not depend on modulators."""

    def readings(self) -> np.ndarray:
        return np.ones(8)


def fixed(*amplitudes: float) -> Any:
    def change(stated: dict[str, Any]) -> None:
        stated["instruments"] = [table for table in stated["instruments"] if table["name"] != "modulators"]
        stated["inputs"] = {"kind": "fixed", "amplitudes": list(amplitudes)}

    return change


@pytest.mark.parametrize(("amplitudes", "at_once"), [((0.0, 1.0, 0.0, 0.0), "one"), ((0.5, 0.5, 0.25, 0.0), "many")])
def test_fixed_inputs_accept_their_own_amplitudes_only(amplitudes: tuple[float, ...], at_once: str, tmp_path: Path) -> None:
    lab = DarkLab(clock := FakeClock())
    with bench_of(lab, clock, tmp_path, fixed(*amplitudes)) as bench:
        description = bench.describe()
        assert (description.input_ports, description.inputs_at_once) == (4, at_once)
        given = np.array([amplitudes] * 3, np.float32)
        assert bench.evaluate(np.zeros((2, 8)), given, "mesh0").values.shape == (2, 3, 4)
        with pytest.raises(DeviceError, match="row 2 of inputs differs from the fixed amplitudes") as caught:
            bench.evaluate(np.zeros((1, 8)), given * np.array([[1], [1], [0]]), "mesh0")
        assert (caught.value.code, caught.value.outcome) == ("bad_request", "not_applied")
        bench.safe()
        assert bench.status().safe


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"kind": "fixed", "channels": [0]}, "channels is given, but inputs of kind 'fixed' have none"),
        ({"kind": "fixed"}, "amplitudes is missing: inputs of kind 'fixed' need it"),
        ({"kind": "switch", "instrument": "x"}, "channels is missing: inputs of kind 'switch' need it"),
        ({"channels": [0, 1]}, "curve is missing: inputs of kind 'modulators' need it"),
        ({"kind": "fixed", "amplitudes": [2.0]}, "inputs.amplitudes.0 is 2.0, but should be less than or equal to 1"),
    ],
)
def test_each_kind_of_inputs_has_its_own_keys(inputs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Station, {**tables(), "inputs": inputs}, "station")
    assert sentence in str(caught.value)


# ---- nominal values --------------------------------------------------------------------------------------------------


def nominal(stated: dict[str, Any]) -> None:
    stated["heater"].update(time_constant_s=7e-6, noise_v=1e-4)
    stated["inputs"].update(phases_steady_s=0.5)
    for number, stage in enumerate(stated["stages"]):
        stage["layout"] = [[0, 0, 0, 4], [0, 2, 1, 5], [1, 1, 2, 6]]
        stage["geometry"] = {"mode_y_m": [0.0, 5e-5, 1e-4, 1.5e-4], "phi_x_m": [0.0, 2e-4], "theta_x_m": [1e-4, 3e-4]}
        stage["detectors"].update(noise_a=1e-9 * (number + 1), bandwidth_hz=1e5)


def test_nominal_values_of_the_station_are_described(tmp_path: Path) -> None:
    bench, _, _ = opened(tmp_path, nominal)
    description = bench.describe()
    assert (description.drive.time_constant_s, description.drive.noise_v, description.phases_steady_s) == (7e-6, 1e-4, 0.5)
    assert (description.readout.noise, description.readout.bandwidth_hz) == ((1e-9, 2e-9), 1e5)
    geometry = description.stages[1].geometry
    assert geometry is not None
    assert (geometry.theta_x_m, geometry.heated_arm) == ((1e-4, 3e-4), "upper")


def test_values_that_are_not_known_are_none(tmp_path: Path) -> None:
    def change(stated: dict[str, Any]) -> None:
        stated["stages"][0]["detectors"]["noise_a"] = 1e-9  # that of the other stage is not known

    bench, _, _ = opened(tmp_path, change)
    description = bench.describe()
    assert (description.drive.time_constant_s, description.drive.noise_v, description.phases_steady_s) == (None, None, None)
    assert (description.readout.noise, description.readout.bandwidth_hz) == (None, None)
    assert description.stages[0].geometry is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mode_y_m": [0.0]}, "geometry of stage mesh0: mode_y_m has 1 values, expected 4, one per mode"),
        ({"phi_x_m": [0.0]}, "geometry of stage mesh0: phi_x_m has 1 values, expected 2, one per column"),
        ({"gamma_x_m": float("inf")}, "geometry of stage mesh0 has a position that is not finite: give metres"),
    ],
)
def test_a_geometry_must_fit_its_layout(changes: dict[str, Any], sentence: str) -> None:
    stated = tables()
    nominal(stated)
    stated["stages"][0]["geometry"].update(changes)
    assert list(problems(Station.model_validate(stated))) == [sentence]


def test_sources_of_heaters_do_not_need_readback(tmp_path: Path) -> None:
    lab = FakeLab(clock := FakeClock(), FakeSource)
    with bench_of(lab, clock, tmp_path, bonded) as bench:
        assert np.isnan(bench.readback().amperes).all()
