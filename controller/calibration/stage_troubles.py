"""Search for defects of a stage by readings alone, before or after a calibration: nothing about its phases is needed.

1. What the sources measure: open heaters and stuck outputs (`heater_readback`).
2. Readings of a random setting, and of one more for each heater: detectors without a signal or at full scale, and
   heaters that change nothing (`channel_modes`).
3. The modes of the heaters: exchanged sources, exchanged fibres and broken couplers (`mesh_wiring`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import Trouble, TroubleKind
from photonloop.controller.calibration.channel_modes import LEAST_RESPONSE, MOST_SATURATED, ChannelModes, measure_modes
from photonloop.controller.calibration.exclusions import Exclusions
from photonloop.controller.calibration.heater_readback import MeasuringDevice, ReadbackTest, tested_by_readback
from photonloop.controller.calibration.mesh_wiring import WiringTest, find_wiring
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin_layout import TwinLayout
from photonloop.controller.learning.variables import start_variables
from photonloop.protocols.device import DeviceDescription, StageDescription

Array = NDArray[np.float64]

MOST_PORTS = 32
"""Largest mesh that is searched: the number of settings grows as its square, and that of their inputs too."""

FEW_PORTS, MANY_SETTINGS = 6, 4
"""Meshes of fewer ports have few known overlaps: their modes are measured at several random settings."""

VOTES = 3
"""Largest number of measurements of the wiring if one shows a defect."""

MOST_ATTEMPTS = 4
"""Random settings at which a heater that changes nothing is tried again."""

FIRST_SAMPLES = 32
"""Inputs of the first setting, which shows whether there is light and how many detectors can be used."""

LEAST_SIGNAL = 0.01
"""Standard deviation of a detector's readings, relative to the median of all detectors, below which it is open."""

LEAST_LIGHT = 1e-3
"""The same median, relative to full scale, below which there is no light."""


def can_search(description: DeviceDescription, stage: StageDescription) -> bool:
    """Return whether `find_troubles` works for a stage.

    It must be the first one, with a detector at every output and no attenuators, and its inputs must be lit at once.
    """
    first = description.stage_index(stage.name) == 0 and description.inputs_at_once == "many"
    complete = stage.tap_ports == stage.ports and "attenuator_theta" not in stage.groups
    return first and complete and bool(stage.layout) and stage.topology != "weight_bank" and 3 <= stage.ports <= MOST_PORTS


def first_troubles(reader: SettingReader, rng: np.random.Generator, device: MeasuringDevice) -> tuple[Trouble, ...]:
    """Search for open heaters, stuck sources and unusable detectors; arguments as for `find_troubles`. One setting."""
    stage = reader.stage.name
    return (
        *_electrical(stage, tested_by_readback(device, reader.stage)),
        *_detectors(stage, reader.full_scale, [_first_look(reader, rng)]),
    )


def find_troubles(
    reader: SettingReader, layout: TwinLayout, rng: np.random.Generator, device: MeasuringDevice | None = None
) -> tuple[Trouble, ...]:
    """Search for defects of a stage with steady inputs of which several can be lit at once.

    Parameters
    ----------
    reader
        Reads settings: one or two for each heater, and four in meshes of fewer than 6 ports; twice as many or more if a
        defect of the wiring has to be confirmed.
    layout
        The stage.
    rng
        Draws settings and inputs.
    device
        Measures voltages and currents; None: optical readings only. Dead heaters and stuck sources cannot be
        distinguished then.

    Returns
    -------
        The defects: of heaters, detectors, couplers and fibres. Output phases (γ) are tested by `device` only.

    Notes
    -----
    Exchanges of two heaters for which all overlaps that follow from the layout are the same are not found: there are
    none in rectangular meshes of 4 to 16 ports.
    """
    stage, nothing = reader.stage.name, np.empty(0, np.int64)
    electrical = ReadbackTest(nothing, nothing, nothing) if device is None else tested_by_readback(device, reader.stage)
    channels = np.setdiff1d(np.concatenate((layout.theta, layout.phi)), np.concatenate((electrical.open, electrical.stuck)))
    by_source, detectors = _electrical(stage, electrical), _detectors(stage, reader.full_scale, [_first_look(reader, rng)])
    if any(each.kind == "no signal" for each in detectors) or len(detectors) > 1:
        return (*by_source, *detectors)
    count = MANY_SETTINGS if layout.ports < FEW_PORTS else 1
    measured = [measure_modes(reader, layout, channels, rng) for _ in range(count)]
    detectors = _detectors(stage, reader.full_scale, [each.readings for each in measured])
    silent = _silent(reader, layout, channels, measured, rng)
    if np.setdiff1d(_weak(channels, measured), silent).size:
        # The mode of a heater that changes the readings at other settings only is not known yet.
        measured.append(measure_modes(reader, layout, channels, rng))
    by_light = _optical(stage, layout, silent, electrical)

    def measure_again() -> list[ChannelModes]:
        return [measure_modes(reader, layout, channels, rng) for _ in range(count)]

    return (*by_source, *by_light, *detectors, *_confirmed(stage, layout, measured, measure_again))


def _confirmed(
    stage: str, layout: TwinLayout, measured: Sequence[ChannelModes], measure_again: Callable[[], Sequence[ChannelModes]]
) -> tuple[Trouble, ...]:
    """Return the defects of the wiring that two of up to three measurements show.

    A single matrix that was not found right would give wrong modes of all heaters.
    """
    found = [_wiring(stage, layout, find_wiring(layout, measured))]
    while len(found) < VOTES and any(found):
        found.append(_wiring(stage, layout, find_wiring(layout, measure_again())))
        if set(map(_what, found[0])) == set(map(_what, found[1])):
            break
    votes = Counter(what for each in found for what in {_what(trouble) for trouble in each})
    everything = {_what(trouble): trouble for each in found for trouble in each}
    return tuple(trouble for what, trouble in everything.items() if votes[what] > 1)


def _what(trouble: Trouble) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    return trouble.kind, trouble.channels, trouble.ports


def _first_look(reader: SettingReader, rng: np.random.Generator) -> Array:
    """Return the readings of one random setting, shape (1, samples, taps)."""
    inputs = rng.random((FIRST_SAMPLES, reader.description.input_ports))
    if reader.description.inputs_at_once == "one":
        inputs = np.eye(reader.description.input_ports)
    return reader.read(start_variables(reader.bounds, rng)[np.newaxis], inputs).readings


def _weak(channels: NDArray[np.int64], measured: Sequence[ChannelModes]) -> NDArray[np.int64]:
    """Return the channels that change too little at all settings that were measured."""
    return channels[np.all([each.response[channels] < LEAST_RESPONSE for each in measured], axis=0)]


def _silent(
    reader: SettingReader,
    layout: TwinLayout,
    channels: NDArray[np.int64],
    measured: Sequence[ChannelModes],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the channels that change nothing, at several random settings."""
    silent = _weak(channels, measured)
    for _ in range(MOST_ATTEMPTS - len(measured) + 1):
        if silent.size:
            silent = silent[measure_modes(reader, layout, silent, rng).response[silent] < LEAST_RESPONSE]
    return silent


def _detectors(stage: str, full_scale: float, readings: Sequence[Array]) -> tuple[Trouble, ...]:
    """Return detectors that are at full scale too often, or whose readings never change."""
    everything = np.concatenate(readings)
    full = np.isnan(everything).any(axis=0).mean(axis=0)
    usable = full <= MOST_SATURATED
    found = [
        _trouble("saturated detector", stage, ports=(k,), detail=f"{full[k]:.0%} of the inputs bring it to full scale: left out")
        for k in np.flatnonzero(~usable).tolist()
    ]
    signal = np.nanstd(everything[..., usable], axis=(0, 1))
    usual = float(np.median(signal)) if signal.size else np.inf
    if usual < LEAST_LIGHT * full_scale:
        return (_trouble("no signal", stage, detail="no detector has a signal above noise: check light, fibres and limits"),)
    dark = np.flatnonzero(usable)[signal < LEAST_SIGNAL * usual]
    found += [_trouble("open detector", stage, ports=(k,), detail="its readings never change: left out") for k in dark.tolist()]
    return tuple(found)


def _electrical(stage: str, electrical: ReadbackTest) -> list[Trouble]:
    return [
        *(
            _trouble("dead heater", stage, (channel,), detail="it is driven but draws no current: it stays at 0 V")
            for channel in electrical.open
        ),
        *(
            _trouble("stuck channel", stage, (channel,), detail="its voltage does not follow the setpoint: it stays at 0 V")
            for channel in electrical.stuck
        ),
    ]


def _optical(stage: str, layout: TwinLayout, silent: NDArray[np.int64], electrical: ReadbackTest) -> list[Trouble]:
    found = []
    for channel in silent:
        where = np.flatnonzero(layout.theta == channel)
        if channel in electrical.measured and where.size:
            top = int(layout.top[where[0]])
            detail = f"current flows in the heater of channel {channel}, θ, but no reading changes: left free in the fit"
            found.append(_trouble("broken coupler", stage, (channel,), (top, top + 1), detail))
        else:
            detail = "no reading depends on it: the heater is dead, or its source is stuck; it stays at 0 V"
            found.append(_trouble("dead heater", stage, (channel,), detail=detail))
    return found


def _wiring(stage: str, layout: TwinLayout, wiring: WiringTest) -> list[Trouble]:
    found = [
        _trouble("swapped heaters", stage, pair, detail="each moves the mode of the other: their wires are exchanged")
        for pair in wiring.heaters
    ]
    for pair in wiring.inputs:
        detail = "light of each enters the mesh at the port of the other: their fibres are exchanged"
        found.append(_trouble("swapped inputs", stage, ports=pair, detail=detail))
    for k, coupler, share in wiring.couplers:
        top, channels = int(layout.top[k]), (int(layout.theta[k]), int(layout.phi[k]))
        stays = f": {share:.0%} of the light stay in its arm" if np.isfinite(share) else ""
        detail = f"coupler {coupler + 1} of the interferometer in column {layout.column[k]} on modes {top} and {top + 1}{stays}"
        found.append(_trouble("broken coupler", stage, channels, (top, top + 1), detail))
    return found


def _trouble(kind: TroubleKind, stage: str, channels: Sequence[int] = (), ports: Sequence[int] = (), detail: str = "") -> Trouble:
    return Trouble(kind, stage, tuple(int(channel) for channel in channels), tuple(int(port) for port in ports), detail)


def exclusions(troubles: Sequence[Trouble]) -> Exclusions:
    """Return what to leave out because of `troubles`. Broken couplers are left to the fit."""
    by_kind = {kind: [each for each in troubles if each.kind == kind] for kind in get_args(TroubleKind)}
    held = [channel for kind in ("dead heater", "stuck channel") for each in by_kind[kind] for channel in each.channels]
    taps = [port for kind in ("open detector", "saturated detector") for each in by_kind[kind] for port in each.ports]
    return Exclusions(
        channels=tuple(held),
        taps=tuple(taps),
        swapped_channels=tuple((each.channels[0], each.channels[1]) for each in by_kind["swapped heaters"]),
        swapped_ports=tuple((each.ports[0], each.ports[1]) for each in by_kind["swapped inputs"]),
    )
