"""Differences between two devices: the same one, another chip of the same shape, or another shape."""

from __future__ import annotations

import pytest

from photonloop.controller.device.device_difference import difference
from photonloop.protocols.device import DeviceDescription
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip


def describe(**changes: object) -> DeviceDescription:
    chip = Chip(ChipParameters.model_validate({**load_chip("soi", ports=4, stages=2).model_dump(), **changes}), threads=1)
    chip.close()
    return chip.describe()


def test_a_chip_in_real_time_is_the_same_chip() -> None:
    before = describe()
    assert difference(before, describe()) is None
    assert difference(before, before.model_copy(update={"clock": "real"})) is None


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"seed": 1}, "serials.seed is 1 and was 0"),
        ({"name": "b"}, "name is b and was soi"),
        ({"coupler": {"angle_sigma_rad": 0.1}}, "serials.parameters is "),
        ({"limits": {**load_chip("soi").limits.model_dump(), "max_batch": 64}}, "serials.parameters is "),
    ],
)
def test_another_chip_of_the_same_shape(changes: dict[str, object], detail: str) -> None:
    found = difference(describe(), describe(**changes))
    assert found is not None
    assert found.same_shape
    assert found.detail.startswith(detail)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"ports": 6}, "input_ports is 6 and was 4"),
        ({"stages": 1}, "it has 1 stages and had 2"),
        ({"mesh": {"topology": "reck"}}, "stages.0.topology is reck and was clements"),
        ({"dac": {"max_v": 5.0}, "seed": 3}, "drive.max_v is 5.0 and was 10.8"),
        ({"heater": {"pi_power_w": 0.02}}, "drive.pi_power_w is 0.02 and was 0.0248"),
        ({"limits": {"power_w": 0.05}}, "limits.power_w is 0.05 and was 0.06"),
    ],
)
def test_a_difference_of_shape_or_limits_goes_before_one_of_names(changes: dict[str, object], detail: str) -> None:
    found = difference(describe(), describe(**changes))
    assert found is not None
    assert not found.same_shape
    assert found.detail == detail


def test_long_values_are_not_quoted() -> None:
    before = describe()
    rows = before.stages[0].layout
    stage = before.stages[0].model_copy(update={"layout": rows[::-1]})
    found = difference(before, before.model_copy(update={"stages": (stage, before.stages[1])}))
    assert found is not None
    assert found.detail == "stages.0.layout has changed"


def test_an_edited_chip_file_changes_the_serials_and_an_explicit_default_does_not() -> None:
    plain = describe()
    assert describe(photodiode={**load_chip("soi").photodiode.model_dump(), "dark_a": 3e-8}).serials != plain.serials
    assert (
        ChipParameters().model_dump_json(exclude_defaults=True) == "{}"
    )  # so that effects that are added later change no digest
