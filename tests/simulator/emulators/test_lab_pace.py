"""Preset `lab` takes the time that the virtual bench takes for the same evaluation."""

import numpy as np
import pytest

from photonloop.drivers.bench.bench_opening import open_lab
from photonloop.simulator.emulators.running import running
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip


@pytest.mark.parametrize("ports", [4, 8])
def test_preset_lab_and_the_virtual_bench_take_the_same_time(ports: int) -> None:
    """On the clocks of both chips, for the instruments that a virtual bench has by default."""
    rng = np.random.default_rng(0)
    drives, inputs = rng.uniform(1.0, 4.0, (4, ports**2)), rng.uniform(0.1, 1.0, (32, ports))
    with running(load_chip("soi", ports=ports, stages=1)) as made:
        chip = made.bench.laboratory.chip
        with open_lab(str(made.addresses.station)) as bench:
            bench.evaluate(drives, inputs, "mesh0")  # also switches the laser on
            before_s = chip.status().clock_s
            bench.evaluate(drives, inputs, "mesh0")
            bench_s = chip.status().clock_s - before_s
    virtual = Chip(load_chip("lab", ports=ports, stages=1), threads=1)
    virtual.evaluate(drives, inputs, "mesh0")
    lab_s = virtual.status().clock_s
    assert lab_s == pytest.approx(bench_s, rel=0.2)
