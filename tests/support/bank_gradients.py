"""Check of the exact gradient of a weight bank against central differences."""

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.truth.chip_truth import Gradient, gradient


def checked_gradient(chip: Chip, seed: int) -> Gradient:
    """Return the gradient of a quadratic loss by the voltages, after comparing it with differences of fourth order."""
    rng, here = np.random.default_rng(seed), chip.describe().stages[0]
    drive, inputs = rng.uniform(2, 4, here.channels), rng.uniform(0, 1, (6, here.ports))
    targets = rng.normal(0, 1e-4, (6, here.tap_ports))

    def loss_and_slope(readings: NDArray) -> tuple[float, NDArray]:
        return float(np.sum((readings - targets) ** 2)) * 1e6, 2e6 * (readings - targets)

    found = gradient(chip, 0, drive, inputs, loss_and_slope)
    expected, step = np.empty(drive.size), 1e-3
    for k in range(drive.size):
        moved = [drive + offset * step * (np.arange(drive.size) == k) for offset in (-2, -1, 1, 2)]
        at = [gradient(chip, 0, volts, inputs, loss_and_slope).loss for volts in moved]
        expected[k] = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)
    assert np.linalg.norm(found.drive_v - expected) <= 1e-6 * np.linalg.norm(expected)
    return found
