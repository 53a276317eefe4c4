"""Fast check of the settings of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import DeviceDescription, Drive
from photonloop.protocols.limits import check_settings
from photonloop.simulator import kernels
from photonloop.simulator.engine.kernel_arrays import read_only
from photonloop.simulator.engine.pipeline import HeldDrive


def checked_settings(
    description: DeviceDescription, max_drive_v: Sequence[NDArray[np.float64]], stage: str, drives: object, held: HeldDrive
) -> tuple[int, Drive]:
    """Return the number of the stage and its checked settings, float64 and read-only.

    A fast check accepts most valid drives. All others go through `photonloop.protocols.limits`, which raises the
    errors. `max_drive_v` has the highest drives of each stage [V].
    """
    index = next((i for i, s in enumerate(description.stages) if s.name == stage), -1)
    limits = description.limits
    if (
        index >= 0
        and isinstance(drives, np.ndarray)
        and drives.dtype == np.float64
        and drives.ndim == 2
        and drives.flags.c_contiguous
        and drives.flags.aligned
        and drives.shape[1] == description.stages[index].channels
        and 0 < drives.shape[0] <= limits.max_settings
    ):
        volts = read_only(drives)
        others_v2 = sum(held.stage_v2) - held.stage_v2[index]
        highest_v2 = limits.total_power_w * description.drive.resistance_ohm
        if kernels.within_limits(volts, description.drive.min_v, max_drive_v[index], others_v2, highest_v2):
            return index, volts
    volts = check_settings(description, stage, drives, held.volts)
    return description.stage_index(stage), read_only(np.require(volts, requirements=["C", "A"]))
