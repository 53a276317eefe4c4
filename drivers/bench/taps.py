"""From what readouts answer to photocurrents: units, saturation, and light that must never be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.bench.instrument_handle import InstrumentError, InstrumentHandle
from photonloop.drivers.bench.monitors import OVER_POWER, TrippedError
from photonloop.drivers.bench.wiring import Tap
from photonloop.protocols.errors import DeviceError


def read_sample(taps: Sequence[Tap], handles: Mapping[str, InstrumentHandle], into: NDArray[np.float64]) -> None:
    """Read the detectors of a stage once, one exchange a readout, into `into` [unit of the readout], shape (tap ports,).

    Raises
    ------
    InstrumentError
        A readout failed, or answered for another number of channels.
    TrippedError
        More light than a detector may ever get.
    """
    for tap in taps:
        handle = handles[tap.instrument]
        answer = handle.query("read", lambda instrument, tap=tap: instrument.read(tap.channels))
        if np.shape(answer) != tap.ports.shape:
            raise _nonsense(handle, f"answered {np.shape(answer)} readings for {len(tap.ports)} channels")
        into[tap.ports] = answer
        if tap.trips:
            _check_light(tap, handle, np.asarray(answer, np.float64))


def photocurrents(
    taps: Sequence[Tap], handles: Mapping[str, InstrumentHandle], raw: NDArray[np.float64], into: NDArray[np.float32]
) -> bool:
    """Turn the readings of one setting, shape (samples, tap ports), into currents [A] in `into`, of the same shape.

    Returns whether any was saturated: such a reading is its full scale, a lower bound.

    Raises
    ------
    InstrumentError
        A reading is no number.
    """
    saturated = False
    for tap in taps:
        amps = raw[:, tap.ports] * tap.ampere_per_unit
        if np.isnan(amps).any():
            raise _nonsense(handles[tap.instrument], "answered something that is no number")
        over = np.abs(amps) >= tap.full_scale_a
        if over.any():
            saturated = True
            amps = np.where(over, np.copysign(tap.full_scale_a, amps), amps)
        into[:, tap.ports] = amps
    return saturated


def _check_light(tap: Tap, handle: InstrumentHandle, raw: NDArray[np.float64]) -> None:
    size_a = np.abs(raw * tap.ampere_per_unit)
    if (size_a > tap.trip_a).any():
        worst = int(np.argmax(size_a / tap.trip_a))
        told = f"detector {int(tap.ports[worst])} ({handle.name}:{tap.channels[worst]}) reads {size_a[worst]:.4g} A"
        raise TrippedError(OVER_POWER, f"{told}, above its trip_a {tap.trip_a[worst]:.4g} A")


def _nonsense(handle: InstrumentHandle, told: str) -> InstrumentError:
    handle.suspect = True
    return InstrumentError(handle.name, DeviceError("device", told, outcome="applied"))
