"""The total heater power, kept within its limit also between two drives.

Sources take a new drive channel by channel and one source after the other. Between two drives that are both within the
limit, the heaters of both may be on, with a total far above it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from photonloop.drivers.bench.output_channels import OutputChannels
from photonloop.protocols.device import DeviceDescription, Drive
from photonloop.protocols.limits import heater_power_w


def drives_between(description: DeviceDescription, heaters: Sequence[OutputChannels], target: Drive) -> list[Drive]:
    """Return the drives [V] to write one after the other to reach `target`, each of shape (channels,).

    Only `target` if the total power cannot be exceeded, whichever channel changes first. Otherwise two drives: the
    first lowers all channels that fall, the second raises all channels that rise.
    """
    total_w = description.limits.total_power_w
    if total_w <= 0:
        return [target]
    now = np.full(description.channels, np.nan)
    for output in heaters:
        now[output.members] = output.volts
    # NaN is a channel whose voltage is unknown; it makes the sum NaN, which is never within the limit.
    if heater_power_w(description, np.maximum(np.abs(now), np.abs(target))) <= total_w:
        return [target]
    now = np.nan_to_num(now)
    return [np.where(np.abs(target) < np.abs(now), target, now), target]
