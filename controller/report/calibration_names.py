"""Names of the parts of a stage, as the report of a calibration shows them."""

from __future__ import annotations

from photonloop.controller.calibration.calibrated_device import Trouble
from photonloop.controller.calibration.twin_layout import TwinLayout


def heater_names(layout: TwinLayout) -> list[str]:
    """Return the name of each heater: θ or φ with column and upper mode of its interferometer, or γ with its mode.

    Examples
    --------
    ``["θ(0, 0)", "θ(0, 2)", …, "φ(0, 0)", …, "γ(3)"]``
    """
    names = [""] * layout.channels
    for column, top, theta, phi in zip(layout.column, layout.top, layout.theta, layout.phi, strict=True):
        names[theta], names[phi] = f"θ({column}, {top})", f"φ({column}, {top})"
    for mode, channel in enumerate(layout.gamma):
        names[channel] = f"γ({mode})"
    return names


def trouble_place(trouble: Trouble, layout: TwinLayout) -> str:
    """Return where a trouble is, as "channel 3, θ(1, 1); port 2"."""
    names = heater_names(layout)
    inside = [channel for channel in trouble.channels if channel < len(names)]
    parts = [f"channel {channel}, {names[channel]}" for channel in inside]
    parts += [f"port {port}" for port in trouble.ports]
    return "; ".join(parts) or "the whole stage"
