"""Readings of a weight bank from settings and inputs, and their derivatives: the controller's own model of a bank.

    nominal heater phases ──▶ `heater_phases` ──▶ phase of every ring ──▶ `ring_fields` ──▶ shares at both detectors
    amplitudes a ──▶ level · (ε² + (1 - ε²) a²) ──▶ × shares, added ──▶ compression ──▶ drop - through + dark ──▶ kept

ε is `RingValues.input_leak`. The last step is the memory of the detectors' amplifiers within a setting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.detector_memory import memory_change, with_memory
from photonloop.controller.calibration.heater_phases import HEAT_SCALARS, CrosstalkModel, heater_phases, phases_adjoint
from photonloop.controller.calibration.ring_fields import RowShares, row_shares
from photonloop.controller.calibration.ring_layout import RingLayout
from photonloop.controller.calibration.ring_values import RingValues, ring_slices

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RingModel:
    """A model of one weight bank: its structure and the values that were fitted.

    Parameters
    ----------
    layout, values
        Structure and values.
    influence_rad
        Phase of each ring per P_π of each heater, in addition to what the values say, shape (channels, channels).
    only_own
        True if ring m acts on wavelength m only, as in a bank whose wavelengths are far apart.
    """

    layout: RingLayout
    values: RingValues
    influence_rad: Array
    only_own: bool = False

    def ring_phases(self, nominal: Array) -> Array:
        """Return the round-trip phases for wavelength 0 [rad] at nominal heater phases, (settings, channels)."""
        found = heater_phases(self.layout.heaters, self.values.heaters(self.layout), self.crosstalk, nominal)
        return found.effective + found.q @ self.influence_rad.T

    def shares(self, phase_rad: Array) -> RowShares:
        """Return the shares at ring phases [rad], shape (settings, channels) or (settings, N, M)."""
        own, m = self.values, self.layout.wavelengths
        phase_rad = phase_rad.reshape(-1, self.layout.rows, 1, m)
        behind = np.pad(own.bus_rad, ((0, 0), (0, 1)))[:, np.newaxis] + own.bus_ratio * own.wavelength_rad[:, np.newaxis]
        return row_shares(
            phase_rad + own.wavelength_rad[:, np.newaxis],
            np.broadcast_to(behind, (len(phase_rad), *behind.shape)),
            own.coupler_share,
            own.round_trip_db,
            self.only_own,
        )

    def weights(self, nominal: Array) -> Array:
        """Return the weights, dropped - passed, at nominal heater phases, shape (settings, N, M)."""
        found = self.shares(self.ring_phases(nominal))
        return found.dropped - found.passed

    def row(self, number: int) -> RingModel:
        """Return the model of one row alone, for `predict_at` and `slopes_at`. It has the heaters of all rows."""
        here, own = slice(number, number + 1), self.values
        values = replace(own, bus_rad=own.bus_rad[here], row_gain=own.row_gain[here], row_dark=own.row_dark[here])
        return replace(self, layout=replace(self.layout, rows=1), values=values)

    @cached_property
    def crosstalk(self) -> CrosstalkModel:
        """Thermal crosstalk at the present values, without `influence_rad`."""
        return CrosstalkModel(self.layout.heaters, self.values.crosstalk_share, self.values.crosstalk_exponent)


@dataclass(frozen=True)
class BankSlopes:
    """Readings at ring phases and their derivatives, without the memory of the amplifiers.

    Parameters
    ----------
    readings
        Readings, shape (settings, samples, N).
    by_phase, by_bus
        Derivatives by the phase of each ring of the same row, and by the phase behind it, (settings, samples, N, M).
    by_value
        Derivatives by the values that do not act through the phases of rings, by kind.
    """

    readings: Array
    by_phase: Array
    by_bus: Array
    by_value: dict[str, Array]


def predict_readings(model: RingModel, phases: Array, inputs: NDArray[np.inexact]) -> Array:
    """Return readings, (settings, samples, N), for heater phases, (settings, channels), and inputs, (samples, M)."""
    return predict_at(model, model.ring_phases(phases), inputs)


def predict_at(model: RingModel, phase_rad: Array, inputs: NDArray[np.inexact]) -> Array:
    """Return readings, (settings, samples, N), at ring phases [rad], shape (settings, channels) or (settings, N, M)."""
    own = model.values
    light, shares = _powers(own, inputs)[0], model.shares(phase_rad)
    currents = [own.row_gain * np.einsum("bk,snk->sbn", light, part) for part in (shares.dropped, shares.passed)]
    dropped, passed = (_compressed(model, current)[0] for current in currents)
    return with_memory(dropped - passed + own.row_dark, own.kept)


def slopes_at(model: RingModel, phase_rad: Array, inputs: NDArray[np.inexact]) -> BankSlopes:
    """Return readings and derivatives at ring phases [rad], shape (settings, channels) or (settings, N, M)."""
    own = model.values
    light, by_leak = _powers(own, inputs)
    shares, m = model.shares(phase_rad), model.layout.wavelengths
    count = len(phase_rad), len(inputs), model.layout.rows
    readings, by_phase, by_bus = np.zeros(count), np.zeros((*count, m)), np.zeros((*count, m))
    kinds = ("compression", "row_gain", "input_leak", "coupler_share", "round_trip_db", "bus_ratio")
    by_value = {kind: np.zeros(count) for kind in kinds} | {kind: np.zeros((*count, m)) for kind in ("level", "wavelength_rad")}
    for number, (share, sign) in enumerate(((shares.dropped, 1.0), (shares.passed, -1.0))):
        plain = np.einsum("bk,snk->sbn", light, share)
        current, steep, by_compression = _compressed(model, own.row_gain * plain)
        slope, steep = sign * steep * own.row_gain, sign * steep
        readings += sign * current
        along = shares.by_bus[number].sum(axis=-1)
        by_wave = shares.by_ring[number].sum(axis=-1) + own.bus_ratio * along
        by_phase += slope[..., np.newaxis] * np.einsum("bk,snkm->sbnm", light, shares.by_ring[number])
        by_bus += slope[..., np.newaxis] * np.einsum("bk,snkm->sbnm", light, shares.by_bus[number])
        by_value["compression"] += sign * by_compression
        by_value["row_gain"] += steep * plain
        by_value["input_leak"] += slope * np.einsum("bk,snk->sbn", by_leak, share)
        by_value["coupler_share"] += slope * np.einsum("bk,snk->sbn", light, shares.by_coupler[number])
        by_value["round_trip_db"] += slope * np.einsum("bk,snk->sbn", light, shares.by_loss[number])
        by_value["bus_ratio"] += slope * np.einsum("bk,snk->sbn", light * own.wavelength_rad, along)
        lit = slope[..., np.newaxis] * light[:, np.newaxis]
        by_value["level"] += lit / own.level * share[:, np.newaxis]
        by_value["wavelength_rad"] += lit * by_wave[:, np.newaxis]
    return BankSlopes(readings + own.row_dark, by_phase, by_bus, by_value)


def readings_and_jacobian(model: RingModel, phases: Array, inputs: NDArray[np.inexact]) -> tuple[Array, Array]:
    """Return readings as `predict_readings`, and their derivatives by all values, (settings, samples, N, values).

    The derivatives are in the order of `ring_values.ring_vector`. Those of `influence_rad` times power by κ and
    self-heating are left out, which are about a thousandth of the others.
    """
    parts = ring_slices(model.layout)
    found = slopes_at(model, model.ring_phases(phases), inputs)
    jacobian = np.zeros((*found.readings.shape, parts["kept"].stop))
    for kind, values in found.by_value.items():
        if kind != "row_gain":
            jacobian[..., parts[kind]] = values.reshape(*found.readings.shape, -1)
    for row in range(model.layout.rows):
        for kind, values in (
            ("row_gain", found.by_value["row_gain"][..., np.newaxis]),
            ("row_dark", np.ones((*found.readings.shape, 1))),
            ("bus_rad", found.by_bus[..., :-1]),
        ):
            first, size = parts[kind].start, values.shape[-1]
            jacobian[:, :, row, first + row * size : first + (row + 1) * size] = values[:, :, row]
    _add_heaters(model, jacobian, parts, phases, found.by_phase)
    kept = model.values.kept
    readings, flat = with_memory(found.readings, kept), jacobian.reshape(*jacobian.shape[:2], -1)
    jacobian = with_memory(flat, kept).reshape(jacobian.shape)
    jacobian[..., parts["kept"].start] = memory_change(found.readings, readings, kept)
    return readings, jacobian


def _add_heaters(model: RingModel, jacobian: Array, parts: dict[str, slice], phases: Array, by_phase: Array) -> None:
    """Add derivatives by the heaters' values, from those by the phases of the rings of each row."""
    heaters, own = model.layout.heaters, model.values.heaters(model.layout)
    at = heater_phases(heaters, own, model.crosstalk, phases)
    found = [
        phases_adjoint(heaters, own, model.crosstalk, at, np.tile(unit, (len(phases), 1))) for unit in np.eye(heaters.channels)
    ]
    by_row = by_phase.transpose(0, 2, 1, 3)  # settings, rows, samples, rings
    shape = len(phases), by_row.shape[1], by_row.shape[3], -1
    for kind in ("offset_rad", "kappa"):
        each = np.stack([part.by_offset if kind == "offset_rad" else part.by_kappa for part in found], axis=1)
        jacobian[..., parts[kind]] = (by_row @ each.reshape(shape)).transpose(0, 2, 1, 3)
    scalars = (by_row @ np.stack([part.by_scalars for part in found], axis=1).reshape(shape)).transpose(0, 2, 1, 3)
    for number, kind in enumerate(HEAT_SCALARS):
        jacobian[..., parts[kind].start] = scalars[..., number]


def _powers(own: RingValues, inputs: NDArray[np.inexact]) -> tuple[Array, Array]:
    """Return the light of each wavelength, (samples, M), as a reading, and its derivative by the leak."""
    power = np.abs(inputs).astype(np.float64) ** 2
    leak = own.input_leak
    return own.level * (leak**2 + (1 - leak**2) * power), own.level * 2 * leak * (1 - power)


def _compressed(model: RingModel, current: Array) -> tuple[Array, Array, Array]:
    """Return i / (1 + c · i / full scale), and its derivatives by i and by c."""
    full_scale = model.layout.full_scale
    steep = 1 / (1 + model.values.compression * current / full_scale)
    return current * steep, steep**2, -((current * steep) ** 2) / full_scale
