"""The total power of all heaters, kept on the way from one drive to the next as well as at its ends.

Sources take a new drive channel by channel, and several of them one after the other: of two drives that are within the total,
the heaters of both together may be far beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from photonloop.drivers.bench.output_channels import Output
from photonloop.protocols.device import DeviceDescription, Drive
from photonloop.protocols.limits import heater_power_w


def drives_between(description: DeviceDescription, heaters: Sequence[Output], target: Drive) -> list[Drive]:
    """Return the drives [V] to be written one after the other on the way to `target`, each of shape (channels,).

    It is `target` alone unless that could exceed the total power, whichever channel moves first; else what falls has fallen
    everywhere before anything rises.
    """
    total_w = description.limits.total_power_w
    if total_w <= 0:
        return [target]
    now = np.full(description.channels, np.nan)
    for output in heaters:
        now[output.members] = output.volts
    # Nobody knows where a NaN stands, so it makes the sum one that fits nowhere.
    if heater_power_w(description, np.maximum(np.abs(now), np.abs(target))) <= total_w:
        return [target]
    now = np.nan_to_num(now)
    return [np.where(np.abs(target) < np.abs(now), target, now), target]
