"""Phases of a stage as a function of its nominal heater phases, and their derivatives.

    x ──▶ V ──▶ V - ground ──▶ P = V²/R, self-heating ──▶ crosstalk ──▶ phase of every segment ──▶ effective phases

Voltages and powers are relative: 1 is the nominal voltage, or power, for a phase of π, so x = π · v². Every array has
settings first. All steps are array operations, products with sparse matrices and, on large
lattices, convolutions. The derivatives are the same steps in reverse order.

A segment at distance d from a heater receives share · (REFERENCE_M / d)^exponent of its power, up to the reach of the
layout. The phase of a segment with a heater follows that heater's curve. Other segments turn in proportion to the power
that they receive, at the rate of a nominal heater. What this law leaves out is smooth in the positions of the heaters:
the slow components of the heat of the stage add a phase to each channel, `TwinParameters.heat_response`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from photonloop.controller.calibration.heat_lattice import convolved, spectrum
from photonloop.controller.calibration.twin_layout import TwinLayout
from photonloop.controller.calibration.twin_parameters import TwinParameters

Array = NDArray[np.float64]

HEAT_SCALARS = ("curvature", "self_heating", "crosstalk_share", "crosstalk_exponent", "ground_ratio")
"""Parameters common to all heaters, in the order of `PhaseGradient.by_scalars`."""

LEAST_V = 1e-6
"""Smallest relative voltage: dv/dx is infinite at 0."""


@dataclass(frozen=True)
class CrosstalkModel:
    """Thermal crosstalk of a stage for a share and an exponent (`TwinParameters`)."""

    layout: TwinLayout
    share: float
    exponent: float

    @cached_property
    def unit(self) -> sparse.csr_array:
        """Matrix from heater powers to the power that each segment receives, for a share of 1, (segments, channels)."""
        return self._matrix(np.exp(self.exponent * self.layout.near_ln))

    @cached_property
    def unit_by_exponent(self) -> sparse.csr_array:
        """Derivative of `unit` by the exponent."""
        return self._matrix(self.layout.near_ln * np.exp(self.exponent * self.layout.near_ln))

    @cached_property
    def spectra(self) -> tuple[Array, Array]:
        """Spectra of the shares and of their derivatives by the exponent, if the layout has a lattice."""
        assert self.layout.lattice is not None
        exponent = self.exponent
        return spectrum(self.layout.lattice, exponent), spectrum(self.layout.lattice, exponent, by_exponent=True)

    def received(self, q: Array, *, by_exponent: bool = False) -> Array:
        """Return the power that each segment receives for a share of 1, or its derivative by the exponent.

        `q` has shape (settings, channels), the result (settings, segments).
        """
        if self.layout.lattice is None:
            return ((self.unit_by_exponent if by_exponent else self.unit) @ q.T).T
        at_segments = np.zeros((len(q), self.layout.segments))
        at_segments[:, self.layout.own] = q
        return convolved(self.layout.lattice, at_segments, self.spectra[by_exponent])

    def received_adjoint(self, by_received: Array) -> Array:
        """Return the derivatives by powers, (settings, channels), from those by received ones, (settings, segments)."""
        if self.layout.lattice is None:
            return (self.unit.T @ by_received.T).T
        return convolved(self.layout.lattice, by_received, self.spectra[0])[:, self.layout.own]

    def shares(self, ln: ArrayLike) -> tuple[Array, Array, Array]:
        """Return the shares at distances with the logarithm `ln`, and their derivatives by share and by exponent."""
        inside = np.isfinite(ln)
        finite = np.where(inside, ln, 0.0)
        by_share = np.where(inside, np.exp(self.exponent * finite), 0.0)
        return self.share * by_share, by_share, self.share * by_share * finite

    def _matrix(self, values: Array) -> sparse.csr_array:
        shape = self.layout.segments, self.layout.channels
        return sparse.csr_array((values, (self.layout.near_to, self.layout.near_from)), shape=shape)


@dataclass(frozen=True)
class HeaterPhases:
    """Effective phases at some settings, and what their derivatives need.

    Parameters
    ----------
    effective
        Effective phases of the channels [rad], shape (settings, channels).
    v, hot, grounds
        Relative voltages, cold divided by hot resistance, and voltage of each ground conductor.
    p, q
        Power relative to the heater's own P_π, and to the nominal P_π.
    received
        Power that each segment receives from others, for a share of 1, shape (settings, segments).
    heat
        Slow components of the heat (`TwinLayout.heat_components`), shape (settings, components).
    arm_power
        Power of each heater's arm, relative to that for π in this arm alone.
    arm_per_q
        `arm_power` per power, shape (channels,).
    """

    effective: Array
    v: Array
    hot: Array
    grounds: Array
    p: Array
    q: Array
    received: Array
    heat: Array
    arm_power: Array
    arm_per_q: Array


@dataclass(frozen=True)
class PhaseGradient:
    """Derivatives of a loss per setting.

    Parameters
    ----------
    by_x, by_offset, by_kappa
        By nominal heater phase, offset and κ, shape (settings, channels).
    by_scalars
        By `HEAT_SCALARS`, shape (settings, 5).
    by_response
        By the response to slow components of the heat, shape (settings, channels, components).
    """

    by_x: Array
    by_offset: Array
    by_kappa: Array
    by_scalars: Array
    by_response: Array


def heater_phases(layout: TwinLayout, own: TwinParameters, crosstalk: CrosstalkModel, x: Array) -> HeaterPhases:
    """Return the effective phases at nominal heater phases `x` [rad], shape (settings, channels)."""
    v = np.sqrt(np.maximum(x, np.pi * LEAST_V**2) / np.pi)
    hot = 1.0 / (1.0 + own.self_heating * _self_heated(v**2, own.self_heating))
    grounds = own.ground_ratio * _by_ground(layout, v * hot) / (1.0 + own.ground_ratio * _by_ground(layout, hot))
    p = _self_heated(own.kappa * (v - grounds[:, layout.ground_bus]) ** 2, own.self_heating)
    q = p / own.kappa
    received = crosstalk.received(q)
    arm_per_q = own.kappa * _arm_factor(layout, own, crosstalk)[0]
    arm_power = (q + crosstalk.share * received[:, layout.own]) * arm_per_q
    segments = _rate(layout, crosstalk) * crosstalk.share * received
    segments[:, layout.own] = own.offset_rad + np.pi * arm_power * (1 + own.curvature * arm_power) / (1 + own.curvature)
    heat = q @ layout.heat_components
    effective = np.ascontiguousarray((layout.effective @ segments.T).T) + heat @ own.heat_response.T
    return HeaterPhases(effective, v, hot, grounds, p, q, received, heat, arm_power, arm_per_q)


def phases_adjoint(
    layout: TwinLayout, own: TwinParameters, crosstalk: CrosstalkModel, at: HeaterPhases, by_effective: Array
) -> PhaseGradient:
    """Return the derivatives of a loss from those by the effective phases, shape (settings, channels).

    `at` may have one setting and `by_effective` several: with a unit matrix the result is the Jacobian.
    """
    by_segment = np.ascontiguousarray((layout.effective.T @ by_effective.T).T)
    by_arm_phase = by_segment[:, layout.own].copy()
    by_segment[:, layout.own] = 0.0
    eta, rate = own.curvature, _rate(layout, crosstalk)
    by_arm = by_arm_phase * np.pi * (1 + 2 * eta * at.arm_power) / (1 + eta)
    by_rate = crosstalk.share * (by_segment * at.received).sum(axis=1)
    by_received = rate * by_segment
    by_received[:, layout.own] += by_arm * at.arm_per_q
    by_q = by_arm * at.arm_per_q + crosstalk.share * crosstalk.received_adjoint(by_received)
    by_q += by_effective @ own.heat_response @ layout.heat_components.T
    by_kappa, by_eta, by_share, by_exponent = _by_arm_factor(
        layout, own, crosstalk, by_arm * at.arm_power / at.arm_per_q, by_rate
    )
    by_eta += (by_arm_phase * np.pi * at.arm_power * (at.arm_power - 1)).sum(axis=1) / (1 + eta) ** 2
    by_share += (by_received * at.received).sum(axis=1)
    by_exponent += crosstalk.share * (by_received * crosstalk.received(at.q, by_exponent=True)).sum(axis=1)
    by_x, by_kappa_of_q, by_rho, by_ground = _powers_adjoint(layout, own, at, by_q)
    return PhaseGradient(
        by_x=by_x,
        by_offset=by_arm_phase,
        by_kappa=by_kappa + by_kappa_of_q,
        by_scalars=np.stack((by_eta, by_rho, by_share, by_exponent, by_ground), axis=1),
        by_response=by_effective[:, :, np.newaxis] * at.heat[:, np.newaxis, :],
    )


def _powers_adjoint(layout: TwinLayout, own: TwinParameters, at: HeaterPhases, by_q: Array) -> tuple[Array, Array, Array, Array]:
    """Return derivatives by x, κ, self-heating and ground from those by the powers q."""
    rho, across = own.self_heating, at.v - at.grounds[:, layout.ground_bus]
    steep = 1 / (1 + 2 * rho * at.p)
    by_kappa = by_q * (steep * across**2 - at.q) / own.kappa
    by_rho = -(by_q * at.p**2 * steep / own.kappa).sum(axis=1)
    by_across = by_q * 2 * across * steep
    by_grounds = -_by_ground(layout, by_across)
    cold = _self_heated(at.v**2, rho)
    cold_steep = 1 / (1 + 2 * rho * cold)
    hot_by_v = -rho * at.hot**2 * 2 * at.v * cold_steep
    hot_by_rho = -(at.hot**2) * (cold - rho * cold**2 * cold_steep)
    whole = 1 + own.ground_ratio * _by_ground(layout, at.hot)
    by_v = by_across + own.ground_ratio * (by_grounds / whole)[:, layout.ground_bus] * (at.hot + across * hot_by_v)
    by_rho += own.ground_ratio * (by_grounds * _by_ground(layout, across * hot_by_rho) / whole).sum(axis=1)
    by_ground = (by_grounds * _by_ground(layout, across * at.hot) / whole).sum(axis=1)
    return by_v / (2 * np.pi * at.v), by_kappa, by_rho, by_ground


def _self_heated(u: Array, rho: float) -> Array:
    """Return p that solves p · (1 + ρp) = u."""
    return 2 * u / (1 + np.sqrt(1 + 4 * rho * u))


def _rate(layout: TwinLayout, crosstalk: CrosstalkModel) -> float:
    """Return the phase per power of a segment without heater, π / (1 - share in the neighbouring mode)."""
    return float(np.pi / (1 - crosstalk.shares(layout.pitch_ln)[0]))


def _arm_factor(layout: TwinLayout, own: TwinParameters, crosstalk: CrosstalkModel) -> tuple[Array, Array]:
    """Return f with f · (1 + ηf) = T, and T: at P_π the own arm turns by π · T/(1 + η), more than the difference, π."""
    share = crosstalk.shares(layout.partner_ln)[0]
    ahead = share / ((1 - crosstalk.shares(layout.pitch_ln)[0]) * own.kappa)
    turns = (1 + own.curvature) * (1 + ahead)
    return _self_heated(turns, own.curvature), turns


def _by_arm_factor(
    layout: TwinLayout, own: TwinParameters, crosstalk: CrosstalkModel, by_arm_per_q: Array, by_rate: Array
) -> tuple[Array, Array, Array, Array]:
    """Return derivatives by κ, curvature, share and exponent from those by κ · `_arm_factor` and by `_rate`."""
    eta, kappa = own.curvature, own.kappa
    factor, turns = _arm_factor(layout, own, crosstalk)
    steep = 1 / (1 + 2 * eta * factor)
    share, by_share, by_exponent = crosstalk.shares(layout.partner_ln)
    pitch, pitch_by_share, pitch_by_exponent = crosstalk.shares(layout.pitch_ln)
    by_turns = by_arm_per_q * kappa * steep
    by_ahead = by_turns * (1 + eta)
    by_kappa = by_arm_per_q * factor - by_ahead * share / ((1 - pitch) * kappa**2)
    by_eta = (by_turns * (turns / (1 + eta) - factor**2)).sum(axis=1)
    by_partner = by_ahead / ((1 - pitch) * kappa)
    by_pitch = by_rate * np.pi / (1 - pitch) ** 2 + (by_partner * share).sum(axis=1) / (1 - pitch)
    return (
        by_kappa,
        by_eta,
        (by_partner * by_share).sum(axis=1) + by_pitch * pitch_by_share,
        (by_partner * by_exponent).sum(axis=1) + by_pitch * pitch_by_exponent,
    )


def _by_ground(layout: TwinLayout, values: Array) -> Array:
    """Return the sums of `values`, (settings, channels), over the heaters of each ground conductor."""
    return (layout.grounds @ values.T).T
