"""Modes that the heaters of a mesh shift, measured by one step of each heater, without knowing any phase.

A heater multiplies one mode |v⟩ of the mesh by e^{iδ}. Seen from the outputs, the transfer matrix U becomes

    U' = D (1 + (e^{iδ} - 1) |v⟩⟨v|) U

with unknown output phases D. So two matrices, each from readings of one setting (`matrix_retrieval`), and the nominal
step δ give |v⟩, and the overlaps |⟨v|w⟩|² of the modes of all heaters, inputs and outputs. Many of them follow from the
layout alone (`mode_relations`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.matrix_retrieval import power_law, retrieved_matrices
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin_layout import TwinLayout

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

STEP_RAD = 2 * np.pi / 3
"""Step of a heater. The modes of the last column could not be found with π."""

MOST_SATURATED = 0.2
"""Share of inputs at which a detector may be at full scale in some setting."""

ALIGNING_STEPS = 6

CLOSE = 0.2
"""Options whose errors differ by less than this cannot be distinguished."""

LEAST_RESPONSE = 0.07
"""Least response of a channel for which its mode is known."""


@dataclass(frozen=True)
class ChannelModes:
    """The modes of all heaters at one setting of the others.

    Parameters
    ----------
    modes
        Possible modes of each channel as fields at the inputs, shape (channels, options, ports).
    errors
        How badly each describes the readings, shape (channels, options); infinite for channels that were not moved.
    response
        How much the powers change, from 0 to about 2, shape (channels,).
    outputs
        Transfer matrix at the setting, (ports, ports): its rows are the modes of the outputs.
    readings
        What was read, shape (settings, samples, taps).
    """

    modes: Complex
    errors: Array
    response: Array
    outputs: Complex
    readings: Array


def measure_modes(
    reader: SettingReader, layout: TwinLayout, channels: NDArray[np.int64], rng: np.random.Generator
) -> ChannelModes:
    """Read a random setting, and then one for every channel with this channel moved by `STEP_RAD`.

    Parameters
    ----------
    reader
        Reads settings. The inputs must be steady, and several must be lit at once.
    layout
        The stage.
    channels
        Channels to be moved, within the stage.
    rng
        Draws the setting and the inputs.
    """
    ports = layout.ports
    lit = rng.random((max(48, ports * (ports + 1)), ports)) < 0.5
    amplitudes = rng.random(lit.shape) * lit
    at = rng.uniform(0.4, 0.4 + 2 * np.pi - STEP_RAD, layout.channels)
    at[layout.gamma] = 0.0
    at *= min(1.0, 0.85 * reader.bounds.total / at.sum())
    settings = np.tile(at, (1 + channels.size, 1))
    settings[1 + np.arange(channels.size), channels] += STEP_RAD
    # Every input is read twice, because a detector may remember the sample before.
    readings = reader.read(settings, np.repeat(amplitudes, 2, axis=0)).readings[:, 1::2]
    found = _matrices(readings, amplitudes, reader.full_scale)
    modes, errors, response = _modes(found[0], found[1:])
    options = errors.shape[1]
    everything = np.full((layout.channels, options, ports), 0j), np.full((layout.channels, options), np.inf)
    for whole, part in zip(everything, (modes, errors), strict=True):
        whole[channels] = part
    strength = np.zeros(layout.channels)
    strength[channels] = response
    return ChannelModes(*everything, strength, found[0], readings)


def _matrices(readings: Array, amplitudes: Array, full_scale: float) -> Complex:
    """Return the matrices of all settings; detectors that are at full scale too often count as missing."""
    missing = np.isnan(readings).any(axis=0).mean(axis=0) > MOST_SATURATED
    usable = np.isfinite(readings[..., ~missing]).all(axis=(0, 2))
    kept, requested = readings[:, usable], amplitudes[usable]
    kept = np.where(missing, 0.0, kept)
    law = power_law(kept, requested, full_scale)
    return retrieved_matrices(law.powers(kept), law.amplitudes(requested))


def _modes(before: Complex, after: Complex) -> tuple[Complex, Array, Array]:
    """Return modes at the inputs, (channels, options, ports), errors, (channels, options), and responses, (channels,).

    If all matrices are conjugated, the step seems to have the other sign: the sign with smaller errors is chosen.
    """
    seen = np.stack([rows @ before.conj().T for rows in (after, after.conj())], axis=1)
    response = (1 - np.abs(np.diagonal(seen, axis1=2, axis2=3)) ** 2).sum(axis=2).min(axis=1)
    found = [_rotations(seen, np.exp(1j * sign * STEP_RAD) - 1) for sign in (-1, 1)]
    modes, errors = min(found, key=lambda each: float(each[1].min(axis=1).sum()))
    return modes.conj() @ before, errors, response


def _rotations(seen: Complex, factor: complex) -> tuple[Complex, Array]:
    """Return modes at the outputs, and errors, from D · (1 + factor · |v⟩⟨v|) = `seen`.

    Every start of `_starts`, with the second matrix as it is or conjugated, is an option. Mode and output phases are
    improved in turn.
    """
    ports = seen.shape[-1]
    mode = _starts(seen, factor)
    rows = np.broadcast_to(seen[:, :, np.newaxis], (*mode.shape, ports))
    rotation, turned = _aligned(mode, rows, factor)
    for _ in range(ALIGNING_STEPS):
        projector = (turned - np.eye(ports)) / factor
        mode = np.linalg.eigh(projector + projector.conj().swapaxes(-1, -2))[1][..., -1]
        rotation, turned = _aligned(mode, rows, factor)
    errors = np.linalg.norm(turned - rotation, axis=(-1, -2))
    return mode.reshape(len(seen), -1, ports), errors.reshape(len(seen), -1)


def _aligned(mode: Complex, rows: Complex, factor: complex) -> tuple[Complex, Complex]:
    """Return 1 + factor · |v⟩⟨v|, and the rows with the phases that bring them closest to it."""
    rotation = np.eye(mode.shape[-1]) + factor * mode[..., :, np.newaxis] * mode[..., np.newaxis, :].conj()
    phase = np.angle(np.sum(rotation.conj() * rows, axis=-1))
    return rotation, np.exp(-1j * phase)[..., np.newaxis] * rows


def _starts(seen: Complex, factor: complex) -> Complex:
    """Return starts for the modes at the outputs, (channels, 2, 2 · ports, ports).

    Row k of `seen` has the elements D_k · factor · v_k v_l* beside the diagonal. Their sum of squares, |factor|² |v_k|²
    (1 - |v_k|²), leaves two values of |v_k|. With each, the diagonal, D_k · (1 + factor · |v_k|²), gives D_k.
    """
    ports = seen.shape[-1]
    diagonal = np.diagonal(seen, axis1=-2, axis2=-1)
    off = seen * (1 - np.eye(ports))
    share = np.clip(4 * np.sum(np.abs(off) ** 2, axis=-1) / abs(factor) ** 2, 0.0, 1.0)
    found = []
    for sign in (-1.0, 1.0):
        power = np.maximum(0.5 * (1 + sign * np.sqrt(1 - share)), 1e-6)
        phasor = np.exp(1j * np.angle(diagonal / (1 + factor * power)))
        others = (off / (phasor * factor * np.sqrt(power))[..., np.newaxis]).conj()
        found.append(others + np.sqrt(power)[..., np.newaxis] * np.eye(ports))
    starts = np.concatenate(found, axis=2)
    return starts / np.linalg.norm(starts, axis=-1, keepdims=True)
