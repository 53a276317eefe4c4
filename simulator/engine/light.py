"""The light of a chip: on, off until the next evaluation, or off until it is switched on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from photonloop.simulator.parameters import LaserParameters


@dataclass(frozen=True)
class Light:
    """State of the light.

    Parameters
    ----------
    on
        Whether the light is on.
    stays_off
        Whether an evaluation leaves it off, because `set_light(False)` switched it off.
    warm_at_s
        Time on the chip's clock from which on readings may be taken [s].
    warmed_up_s
        Total time that the chip has waited for the light to warm up [s].
    """

    on: bool
    stays_off: bool = False
    warm_at_s: float = 0.0
    warmed_up_s: float = 0.0

    def warm_up_left_s(self, now_s: float) -> float:
        """Return the time until the light is warm [s]; 0 if it is off."""
        return max(0.0, self.warm_at_s - now_s) if self.on else 0.0


def first_light(laser: LaserParameters) -> Light:
    """Return the state at the start: off, or on if the light cannot be switched."""
    return Light(on=not laser.switch)


def switched_on(light: Light, laser: LaserParameters, now_s: float) -> Light:
    """Return the state after the light was switched on. Unchanged if it is on already."""
    if light.on:
        return light
    return Light(True, warm_at_s=now_s + laser.warm_up_s, warmed_up_s=light.warmed_up_s + laser.warm_up_s)


def switched_off(light: Light, laser: LaserParameters, *, stays_off: bool) -> Light:
    """Return the state after the light was switched off. Unchanged if it cannot be switched."""
    return replace(light, on=False, stays_off=stays_off) if laser.switch else light
