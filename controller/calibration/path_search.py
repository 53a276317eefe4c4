"""Search for the brightest setting of light paths through unknown interferometers (`light_paths`).

The power behind a path is a product of one fringe A + B cos for each of its interferometers, so each can be brought to
its maximum on its own. At a random setting the product of 15 of them is near -90 dB, far below any detector's noise.
Random settings are therefore tried first, and the brightest is the start. Sweeps follow, one interferometer of each
path after another; those that were swept while the path was dark are swept again when it is bright.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.column_scans import random_phases
from photonloop.controller.calibration.fringes import Cosines, fit_cosines
from photonloop.controller.calibration.heated_phases import (
    arm_signs,
    effective_phases,
    heater_curve,
    nominal_for,
    with_offsets,
)
from photonloop.controller.calibration.light_paths import LightPath, PathRound
from photonloop.controller.calibration.lit_inputs import LitReadings, read_lit
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_misfit import ReadingNoise

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SearchOptions:
    """Options of `search_round`.

    Parameters
    ----------
    points
        Settings of each sweep.
    most_restarts
        Largest number of random settings that are tried per path.
    most_passes
        Largest number of sweeps per interferometer.
    most_repeats
        Largest number of samples that are averaged.
    error_rad
        Error of a maximum up to which a sweep is not repeated.
    least_visibility
        Visibility below which an interferometer is left out: it is not put in bar.
    """

    points: int = 5
    most_restarts: int = 256
    most_passes: int = 4
    most_repeats: int = 64
    error_rad: float = 0.12
    least_visibility: float = 0.5


@dataclass(frozen=True)
class PathSearch:
    """Result of a search.

    Parameters
    ----------
    twin
        The twin with the offsets of the interferometers that were found.
    nominal
        Setting with the interferometers of the round locked, shape (channels,).
    visibility
        Of the last sweep of each interferometer, by its number.
    failed
        Numbers of interferometers that were not found.
    """

    twin: Twin
    nominal: Array
    visibility: dict[int, float]
    failed: tuple[int, ...]


class _Sweeps:
    """State of the search of one round: the setting, and for each interferometer the error and visibility so far."""

    def __init__(self, twin: Twin, nominal: Array, reader: SettingReader, noise: ReadingNoise, options: SearchOptions) -> None:
        self.twin, self.nominal, self.reader = twin, nominal, reader
        self.noise, self.options = noise, options
        self.error_rad: dict[int, float] = {}
        self.visibility: dict[int, float] = {}

    def sweep(self, paths: tuple[LightPath, ...], numbers: list[int]) -> None:
        """Sweep one interferometer of each path and bring it to its maximum."""
        layout, options = self.twin.layout, self.options
        channels = layout.theta[numbers]
        settings = np.tile(self.nominal, (options.points, 1))
        y = 0.3 + 2 * np.pi * np.arange(options.points) / options.points
        settings[:, channels] = heater_curve(self.twin).nominal(y)[:, np.newaxis]
        unknown = with_offsets(self.twin, channels, np.zeros(len(numbers)))
        phases = effective_phases(unknown, settings)[:, channels].T
        repeats = self._repeats(paths)
        powers = read_lit(self.reader, settings, [path.lit for path in paths], repeats)
        values = np.stack([powers.lit[:, row, path.output] for row, path in enumerate(paths)])
        found = fit_cosines(phases, values)
        error = self._errors(paths, powers, found, repeats)
        for row, (path, number) in enumerate(zip(paths, numbers, strict=True)):
            self.error_rad[number] = float(error[row])
            self.visibility[number] = float(found.visibility[row])
            if error[row] < 1.0:
                offset = arm_signs(layout)[channels[row]] * (found.offset_rad[row] + path.target_rad)
                self.twin = with_offsets(self.twin, channels[row : row + 1], np.array([offset]))
                wanted = np.array([path.target_rad])
                self.nominal = nominal_for(
                    self.twin, self.nominal[np.newaxis], channels[row : row + 1], wanted, self.reader.bounds
                )[0]
            else:
                self.nominal[channels[row]] = settings[values[row].argmax(), channels[row]]

    def start(self, paths: tuple[LightPath, ...], rng: np.random.Generator) -> None:
        """Try random settings of the interferometers, and keep the brightest of each path."""
        layout, longest = self.twin.layout, max(len(path.interferometers) for path in paths)
        best, tried = np.full(len(paths), -np.inf), 0
        while tried < self.options.most_restarts and longest > 2:
            count = 2 * longest
            settings = np.tile(self.nominal, (count, 1))
            drawn = np.stack([random_phases(layout, heater_curve(self.twin), rng) for _ in range(count)])
            powers_at = []
            for path in paths:
                channels = layout.theta[list(path.interferometers)]
                settings[:, channels] = drawn[:, channels]
            repeats = min(4, self.options.most_repeats)
            powers = read_lit(self.reader, settings, [path.lit for path in paths], repeats)
            for row, path in enumerate(paths):
                found = powers.lit[:, row, path.output]
                # Light of the lit input and light that the other modulators do not block interfere.
                contrast = found - 2 * np.maximum(powers.dark[:, path.output] - self._dark(path), 0.0)
                if contrast.max() > best[row]:
                    best[row] = contrast.max()
                    channels = layout.theta[list(path.interferometers)]
                    self.nominal[channels] = settings[contrast.argmax(), channels]
                powers_at.append(best[row])
            tried += count
            if np.all(best > 30 * self.noise.dark / np.sqrt(repeats)):
                return

    def doubtful(self, path: LightPath) -> list[int]:
        """Return the interferometers of a path that should be swept again."""
        return [k for k in path.interferometers if self.error_rad.get(k, np.inf) > self.options.error_rad]

    def _repeats(self, paths: tuple[LightPath, ...]) -> int:
        return self.options.most_repeats if any(self.doubtful(path) for path in paths) else 1

    def _dark(self, path: LightPath) -> float:
        return float(self.twin.parameters.detector_dark[path.output])

    def _errors(self, paths: tuple[LightPath, ...], powers: LitReadings, found: Cosines, repeats: int) -> Array:
        """Return the errors of the maxima [rad]: from noise, and from light that interferes with that of the path."""
        error = []
        for row, path in enumerate(paths):
            stray = np.maximum(powers.dark[:, path.output] - self._dark(path), 0.0).mean()
            noise = np.hypot(self.noise.dark, self.noise.relative * found.mean[row]) / np.sqrt(repeats)
            amplitude = max(found.amplitude[row], 1e-300)
            error.append((np.sqrt(2 / self.options.points) * noise + np.sqrt(0.1 * stray * amplitude)) / amplitude)
        return np.array(error)


def search_round(
    twin: Twin,
    nominal: Array,
    round_: PathRound,
    reader: SettingReader,
    noise: ReadingNoise,
    rng: np.random.Generator,
    options: SearchOptions,
) -> PathSearch:
    """Find θ of all interferometers of a round, up to about 0.1 rad, and lock them.

    Parameters
    ----------
    twin
        The twin with the offsets that are known.
    nominal
        Setting with the interferometers of earlier rounds locked, shape (channels,).
    round_
        Paths that are searched at the same time.
    reader, noise
        Reads settings; noise of the readings.
    rng
        Draws random settings.
    options
        Numbers of settings and samples.
    """
    state = _Sweeps(twin, nominal.copy(), reader, noise, options)
    state.start(round_.paths, rng)
    for _ in range(options.most_passes):
        waiting = [state.doubtful(path) for path in round_.paths]
        if not any(waiting):
            break
        for step in range(max(map(len, waiting))):
            taking_part = [number for number, todo in enumerate(waiting) if step < len(todo)]
            state.sweep(tuple(round_.paths[number] for number in taking_part), [waiting[number][step] for number in taking_part])
    numbers = [k for path in round_.paths for k in path.interferometers]
    failed = [k for k in numbers if state.visibility[k] < options.least_visibility or state.error_rad[k] > 4 * options.error_rad]
    locked = np.array([k for k in numbers if k not in failed], np.int64)
    channels = twin.layout.theta[locked]
    wanted = np.full(channels.size, round_.locked_rad)
    nominal = nominal_for(state.twin, state.nominal[np.newaxis], channels, wanted, reader.bounds)[0]
    return PathSearch(state.twin, nominal, state.visibility, tuple(failed))
