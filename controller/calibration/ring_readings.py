"""Readings of a weight bank from settings and inputs, and their derivatives: the controller's own model of a bank.

    nominal heater phases ──▶ `heater_phases` ──▶ phase of every ring ──▶ `ring_fields` ──▶ shares at both detectors
    amplitudes a ──▶ level · (ε² + (1 - ε²) a²) ──▶ × shares, added ──▶ compression ──▶ drop - through + dark ──▶ kept

ε is `RingValues.input_leak`. The last step is the memory of the detectors' amplifiers within a setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

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
    only_own
        True if ring m acts on wavelength m only, as in a bank whose wavelengths are far apart.
    """

    layout: RingLayout
    values: RingValues
    only_own: bool = False

    def ring_phases(self, nominal: Array) -> Array:
        """Return the round-trip phases for wavelength 0 [rad] at nominal heater phases, (settings, channels)."""
        return heater_phases(self.layout.heaters, self.values.heaters(self.layout), self.crosstalk, nominal).effective

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
        """Return the weights, drop - through, at nominal heater phases, shape (settings, N, M)."""
        found = self.shares(self.ring_phases(nominal))
        return found.dropped - found.passed

    @cached_property
    def crosstalk(self) -> CrosstalkModel:
        """Thermal crosstalk at the present values."""
        return CrosstalkModel(self.layout.heaters, self.values.crosstalk_share, self.values.crosstalk_exponent)


def predict_readings(model: RingModel, phases: Array, inputs: Array) -> Array:
    """Return readings, (settings, samples, N), for heater phases, (settings, channels), and inputs, (samples, M)."""
    own = model.values
    light, shares = _powers(own, inputs)[0], model.shares(model.ring_phases(phases))
    currents = [own.row_gain * np.einsum("bk,snk->sbn", light, part) for part in (shares.dropped, shares.passed)]
    dropped, passed = (_compressed(model, current)[0] for current in currents)
    return _filtered(dropped - passed + own.row_dark, own.kept)


def readings_and_jacobian(model: RingModel, phases: Array, inputs: Array) -> tuple[Array, Array]:
    """Return the readings, (settings, samples, N), and their derivatives, (settings, samples, N, values).

    The derivatives are in the order of `ring_values.ring_vector`.
    """
    layout, own, parts = model.layout, model.values, ring_slices(model.layout)
    light, by_leak = _powers(own, inputs)
    shares = model.shares(model.ring_phases(phases))
    count = len(phases), len(inputs), layout.rows
    jacobian = np.zeros((*count, parts["kept"].stop))
    linear = np.zeros(count)
    by_phase = np.zeros((*count, layout.wavelengths))  # by the phases of the rings of the same row
    for number, (share, sign) in enumerate(((shares.dropped, 1.0), (shares.passed, -1.0))):
        plain = np.einsum("bk,snk->sbn", light, share)
        current, steep, by_compression = _compressed(model, own.row_gain * plain)
        linear += sign * current
        slope = sign * steep * own.row_gain
        _add(jacobian, parts, "compression", sign * by_compression)
        _add_rows(jacobian, parts, "row_gain", sign * steep * plain)
        _add(jacobian, parts, "level", slope[..., np.newaxis] * share[:, np.newaxis] * (light / own.level)[:, np.newaxis])
        _add(jacobian, parts, "input_leak", slope * np.einsum("bk,snk->sbn", by_leak, share))
        _add(jacobian, parts, "coupler_share", slope * np.einsum("bk,snk->sbn", light, shares.by_coupler[number]))
        _add(jacobian, parts, "round_trip_db", slope * np.einsum("bk,snk->sbn", light, shares.by_loss[number]))
        by_ring = slope[..., np.newaxis] * np.einsum("bk,snkm->sbnm", light, shares.by_ring[number])
        by_bus = slope[..., np.newaxis] * np.einsum("bk,snkm->sbnm", light, shares.by_bus[number])
        by_phase += by_ring
        by_wave = shares.by_ring[number].sum(axis=-1) + own.bus_ratio * shares.by_bus[number].sum(axis=-1)
        _add(jacobian, parts, "wavelength_rad", slope[..., np.newaxis] * light[:, np.newaxis] * by_wave[:, np.newaxis])
        along = np.einsum("bk,snk->sbn", light * own.wavelength_rad, shares.by_bus[number].sum(axis=-1))
        _add(jacobian, parts, "bus_ratio", slope * along)
        _add_rows(jacobian, parts, "bus_rad", by_bus[..., :-1])
    _add_rows(jacobian, parts, "row_dark", np.ones(count))
    _add_heaters(model, jacobian, parts, phases, by_phase)
    return _with_memory(linear + own.row_dark, jacobian, own.kept, parts)


def _with_memory(settled: Array, jacobian: Array, kept: float, parts: dict[str, slice]) -> tuple[Array, Array]:
    readings, derivatives = _filtered(settled, kept), _filtered(jacobian, kept)
    # y[t] = (1 - q) x[t] + q y[t-1], so dy[t]/dq = y[t-1] - x[t] + q dy[t-1]/dq
    by_kept = np.zeros_like(readings)
    for t in range(1, readings.shape[1]):
        by_kept[:, t] = readings[:, t - 1] - settled[:, t] + kept * by_kept[:, t - 1]
    derivatives[..., parts["kept"].start] = by_kept
    return readings, derivatives


def _add(jacobian: Array, parts: dict[str, slice], kind: str, values: Array) -> None:
    """Add derivatives by one number, (settings, samples, N), or by some, with a last axis for them."""
    jacobian[..., parts[kind]] += values.reshape(*jacobian.shape[:3], -1)


def _add_rows(jacobian: Array, parts: dict[str, slice], kind: str, values: Array) -> None:
    """Add derivatives by values of each row's own, (settings, samples, N) or (settings, samples, N, values of a row)."""
    rows = jacobian.shape[2]
    each = values.reshape(*jacobian.shape[:3], -1)
    view = jacobian[..., parts[kind]].reshape(*jacobian.shape[:3], rows, -1)
    for row in range(rows):
        view[:, :, row, row] += each[:, :, row]
    jacobian[..., parts[kind]] = view.reshape(*jacobian.shape[:3], -1)


def _add_heaters(model: RingModel, jacobian: Array, parts: dict[str, slice], phases: Array, by_phase: Array) -> None:
    """Add derivatives by the heaters' values, from those by the phases of the rings of each row."""
    layout = model.layout
    own, count, crosstalk = model.values.heaters(layout), by_phase.shape[1:3], model.crosstalk
    for setting, nominal in enumerate(phases):
        by_channel = np.zeros((*count, layout.rows, layout.wavelengths))
        for row in range(layout.rows):
            by_channel[:, row, row] = by_phase[setting, :, row]
        at = heater_phases(layout.heaters, own, crosstalk, nominal[np.newaxis])
        found = phases_adjoint(layout.heaters, own, crosstalk, at, by_channel.reshape(-1, layout.channels))
        jacobian[setting, ..., parts["offset_rad"]] = found.by_offset.reshape(*count, -1)
        jacobian[setting, ..., parts["kappa"]] = found.by_kappa.reshape(*count, -1)
        for kind, values in zip(HEAT_SCALARS, found.by_scalars.T, strict=True):
            jacobian[setting, ..., parts[kind].start] = values.reshape(count)


def _powers(own: RingValues, inputs: Array) -> tuple[Array, Array]:
    """Return the light of each wavelength, (samples, M), as a reading, and its derivative by the leak."""
    power = np.abs(inputs) ** 2
    leak = own.input_leak
    return own.level * (leak**2 + (1 - leak**2) * power), own.level * 2 * leak * (1 - power)


def _compressed(model: RingModel, current: Array) -> tuple[Array, Array, Array]:
    """Return i / (1 + c · i / full scale), and its derivatives by i and by c."""
    full_scale = model.layout.full_scale
    steep = 1 / (1 + model.values.compression * current / full_scale)
    return current * steep, steep**2, -((current * steep) ** 2) / full_scale


def _filtered(values: Array, kept: float) -> Array:
    """Return readings with the share `kept` of the sample before; the first sample of a setting has settled."""
    found = values.copy()
    for t in range(1, values.shape[1]) if kept else ():
        found[:, t] = (1 - kept) * values[:, t] + kept * found[:, t - 1]
    return found
