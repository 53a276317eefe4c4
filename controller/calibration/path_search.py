"""Search for the brightest setting of light paths through unknown interferometers (`light_paths`).

The power behind a path is a product of one fringe A + B cos for each of its interferometers, so each can be brought to
its maximum on its own. At a random setting the product of 15 of them is near -90 dB, far below any detector's noise.
Random settings are therefore tried first, and the brightest is the start. Sweeps follow, one interferometer of each
path after another; those that were swept while the path was dark are swept again when it is bright.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.column_scans import random_phases
from photonloop.controller.calibration.fringes import fit_cosines
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

FEW_REPEATS = 3
"""Samples of each setting if there is enough light."""

LEAK = 0.003
"""Share of the brightest signal that is assumed to come another way, through interferometers that are not exactly in
bar."""

BRIGHT = 30.0
"""Signal relative to stray light above which the interference of both is small enough."""


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
    most_restarts: int = 120
    most_passes: int = 3
    most_repeats: int = 32
    error_rad: float = 0.1
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


class PathLight(NamedTuple):
    """Brightest reading of a path, and that of stray light at the same output."""

    signal: float
    stray: float


class _PathSweeps:
    """State of the search of one round: the setting, and for each interferometer the error and visibility so far.

    Light of the lit input interferes with light that the modulators of the others let through, which may be stronger.
    If so, each setting is read at two values, half a period apart, of the φ that only light of the lit input passes:
    the interference has opposite signs.
    """

    def __init__(self, twin: Twin, nominal: Array, reader: SettingReader, noise: ReadingNoise, options: SearchOptions) -> None:
        self.twin, self.nominal, self.reader = twin, nominal, reader
        self.brightest = 0.0
        self.noise, self.options = noise, options
        self.error_rad: dict[int, float] = {}
        self.visibility: dict[int, float] = {}
        self._seen: dict[int, PathLight] = {}

    def start(self, paths: tuple[LightPath, ...], rng: np.random.Generator) -> None:
        """Try random settings of the interferometers, and keep the brightest of each path."""
        layout, longest, tried = self.twin.layout, max(len(path.interferometers) for path in paths), 0
        if longest <= 2:
            return
        while tried < self.options.most_restarts and any(self._is_dark(path) for path in paths):
            drawn = np.stack([random_phases(layout, heater_curve(self.twin), rng) for _ in range(2 * longest)])
            settings = np.tile(self.nominal, (len(drawn), 1))
            for path in paths:
                channels = layout.theta[list(path.interferometers)]
                settings[:, channels] = drawn[:, channels]
            powers = read_lit(self.reader, settings, [path.lit for path in paths], FEW_REPEATS)
            for row, path in enumerate(paths):
                signal = powers.lit[:, row, path.output]
                best = int(signal.argmax())
                if signal[best] > self._light(path).signal:
                    self._remember(path, float(signal[best]), powers)
                    channels = layout.theta[list(path.interferometers)]
                    self.nominal[channels] = settings[best, channels]
            tried += len(drawn)

    def sweep(self, paths: tuple[LightPath, ...], numbers: list[int]) -> None:
        """Sweep one interferometer of each path and bring it to its maximum."""
        layout, points = self.twin.layout, self.options.points
        channels = layout.theta[numbers]
        settings = np.tile(self.nominal, (points, 1))
        y = 0.3 + 2 * np.pi * np.arange(points) / points
        settings[:, channels] = heater_curve(self.twin).nominal(y)[:, np.newaxis]
        both = np.concatenate((settings, settings)) if any(map(self._is_dim, paths)) else settings
        for path in paths:
            own = self._own_phi(path)
            both[points:, own] = heater_curve(self.twin).nominal(np.pi)
        unknown = with_offsets(self.twin, channels, np.zeros(len(numbers)))
        phases = effective_phases(unknown, settings)[:, channels].T
        repeats = self._repeats(paths)
        powers = read_lit(self.reader, both, [path.lit for path in paths], repeats)
        values = np.stack([powers.lit[:, row, path.output].reshape(-1, points).mean(axis=0) for row, path in enumerate(paths)])
        found = fit_cosines(phases, values)
        for row, (path, number) in enumerate(zip(paths, numbers, strict=True)):
            channel, peak = channels[row : row + 1], float(found.mean[row] + found.amplitude[row])
            self._remember(path, peak, powers)
            self.visibility[number] = float(found.visibility[row])
            samples = repeats * len(both) // points
            self.error_rad[number] = self._error(path, float(found.amplitude[row]), samples, interferes=both is settings)
            if self.error_rad[number] < 1.0:
                offset = arm_signs(layout)[channel] * (found.offset_rad[row] + path.target_rad)
                self.twin = with_offsets(self.twin, channel, offset)
                wanted = np.array([path.target_rad])
                self.nominal = nominal_for(self.twin, self.nominal[np.newaxis], channel, wanted, self.reader.bounds)[0]
            else:
                self.nominal[channel] = settings[values[row].argmax(), channel]

    def doubtful(self, path: LightPath) -> list[int]:
        """Return the interferometers of a path that should be swept again."""
        return [k for k in path.interferometers if self.error_rad.get(k, np.inf) > self.options.error_rad]

    def _remember(self, path: LightPath, signal: float, powers: LitReadings) -> None:
        stray = float(powers.dark[:, path.output].mean() - self.twin.parameters.detector_dark[path.output])
        self._seen[path.interferometers[0]] = PathLight(signal, max(stray, 0.0))
        self.brightest = max(self.brightest, signal)

    def _light(self, path: LightPath) -> PathLight:
        return self._seen.get(path.interferometers[0], PathLight(0.0, 0.0))

    def _is_dark(self, path: LightPath) -> bool:
        """Return whether hardly any light of the path was seen yet."""
        light = self._light(path)
        return light.signal < max(10 * self.noise.dark / np.sqrt(FEW_REPEATS), 0.5 * light.stray)

    def _is_dim(self, path: LightPath) -> bool:
        """Return whether stray light is so strong that its interference matters, and can be told from the signal."""
        return self._own_phi(path).size > 0 and self._light(path).signal < BRIGHT * self._light(path).stray

    def _own_phi(self, path: LightPath) -> NDArray[np.int64]:
        """Return the channel of the φ that only light of the lit input passes; empty if there is none."""
        layout = self.twin.layout
        first = np.flatnonzero((layout.column == 0) & (layout.top == path.lit) & ~layout.lower)
        return layout.phi[first]

    def _repeats(self, paths: tuple[LightPath, ...]) -> int:
        seen = [self._light(path).signal for path in paths if self._light(path).signal > 0]
        signal = min(seen, default=np.inf)
        needed = (self.noise.dark / (0.05 * max(signal, self.noise.dark / 50))) ** 2
        return int(np.clip(np.ceil(needed), FEW_REPEATS, self.options.most_repeats))

    def _error(self, path: LightPath, amplitude: float, samples: int, *, interferes: bool) -> float:
        """Return the error of a maximum [rad]: from noise, and from stray light that interferes."""
        noise = np.hypot(self.noise.dark, self.noise.relative * amplitude) * np.sqrt(2 / self.options.points / samples)
        stray = LEAK * self.brightest + (self._light(path).stray if interferes else 0.0)
        return float((noise + np.sqrt(0.1 * stray * max(amplitude, 0.0))) / max(amplitude, 1e-300))


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
    state = _PathSweeps(twin, nominal.copy(), reader, noise, options)
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
