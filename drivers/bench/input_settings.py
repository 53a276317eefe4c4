"""What the instruments in front of the input ports are set to for each sample.

modulators   one voltage per port
switch       the channel that is lit; DARK if no port is lit
fixed        nothing: every sample must have the amplitudes of the station file
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.station import encoding_curve as curves
from photonloop.drivers.station.schema import InputsTable, Station
from photonloop.protocols.errors import DeviceError

DARK = -1
"""Setting of a switch for a sample without light."""

_TOLERANCE = 1e-6
"""Inputs may be float32, so amplitudes are compared with this tolerance."""


def input_settings(station: Station, amplitudes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the settings for field `amplitudes`, shape (samples, input ports), that passed `check_samples`.

    Returns
    -------
    array, shape (samples, input ports), (samples, 1) or (samples, 0)
        Voltages of the modulators [V], the channel of the switch, or nothing.
    """
    inputs = station.inputs
    if inputs.kind == "fixed":
        return np.zeros((len(amplitudes), 0))
    if inputs.kind == "switch":
        numbers = np.array([channel.number for channel in station.input_channels()])
        return np.where(amplitudes.any(axis=1), numbers[amplitudes.argmax(axis=1)], DARK).astype(np.float64)[:, np.newaxis]
    if len(inputs.curve) == 1:
        return curves.drive_for_amplitudes(inputs.curve[0], amplitudes)
    return np.stack([curves.drive_for_amplitudes(curve, amplitudes[:, port]) for port, curve in enumerate(inputs.curve)], axis=1)


def check_samples(inputs: InputsTable, amplitudes: NDArray[np.floating], *, has_dark: bool) -> None:
    """Raise "bad_request" for the first sample of `amplitudes`, shape (samples, input ports), that cannot be set.

    `has_dark` is whether the switch has a dark position.
    """
    if inputs.kind == "fixed":
        differs = (np.abs(amplitudes - np.array(inputs.amplitudes)) > _TOLERANCE).any(axis=1)
        if differs.any():
            row = int(np.argmax(differs))
            raise DeviceError(
                "bad_request",
                f"row {row} of inputs differs from the fixed amplitudes {list(inputs.amplitudes)} of this bench: "
                "send these amplitudes, or use set_light for dark readings",
            )
    if inputs.kind != "switch":
        return
    partial = (amplitudes > 0) & (np.abs(amplitudes - 1) > _TOLERANCE)
    if partial.any():
        value = float(amplitudes[partial][0])
        raise DeviceError("bad_request", f"inputs contains the amplitude {value:g}, but an optical switch has only 0 and 1")
    lit = (amplitudes > 0).sum(axis=1)
    if (lit > 1).any():
        row = int(np.argmax(lit > 1))
        raise DeviceError(
            "bad_request", f"row {row} of inputs lights {lit[row]} inputs, but the optical switch lights one at a time"
        )
    if not (has_dark or lit.all()):
        row = int(np.argmin(lit))
        raise DeviceError(
            "bad_request",
            f"row {row} of inputs has no lit port, but the switch has no dark position: use set_light for dark readings",
        )
