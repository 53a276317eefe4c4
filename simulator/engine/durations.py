"""Durations of a chip's operations on its clock."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import DeviceDescription, Drive


def ramp_s(description: DeviceDescription, start: Drive, end: Drive) -> float:
    """Return the time in which the sources change from one drive [V] to another within the slew limit [s]."""
    slew = description.limits.slew_v_per_s
    return float(np.max(np.abs(end - start))) / slew if slew > 0 else 0.0


def evaluation_times(
    description: DeviceDescription, start_s: float, volts: Drive, held: Drive, samples: int
) -> tuple[NDArray[np.float64], float]:
    """Return when each setting is first read, and the duration of all with the return to the held drive [s].

    Parameters
    ----------
    description
        Description of the chip, with the times to settle and to read a sample, and the slew limit.
    start_s
        Time on the chip's clock at which the evaluation begins.
    volts, held
        Settings [V], shape (settings, channels), and held drive of the same stage.
    samples
        Number of samples of each setting.
    """
    settle_s, read_s = description.drive.settle_s, samples * description.readout.sample_s
    settings = volts.shape[0]
    before = np.arange(1, settings + 1) * settle_s + np.arange(settings) * read_s
    ramps_s = 0.0
    if description.limits.slew_v_per_s > 0:
        ramps = np.cumsum([ramp_s(description, a, b) for a, b in pairwise(np.vstack([held, volts, held]))])
        before += ramps[:-1]
        ramps_s = float(ramps[-1])
    return start_s + before, settings * (settle_s + read_s) + ramps_s
