"""Draw the pictures of docs/physics.md with a virtual chip, through the methods of a device.

    python scripts/studies/physics_pictures.py [--out docs/physics] [--only fringe …] [--quick] [--json]

    fringe     the power at both outputs of an interferometer against the heater voltage, `soi` and `harsh`
    crosstalk  the change of every θ and φ of a stage when one heater gets its P_π
    transient  readings after a step of a heater, for heating and for cooling
    noise      the standard deviation of a reading against its mean, and the sum of the noise sources
    allan      the Allan deviation of a reading over a day, of `soi`, `harsh` and `lab`
    weight     the weights of two wavelengths against the heater of one ring, with and without spectral crosstalk

--json prints the figures that the page quotes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from photonloop.controller.learning.variables import to_drive
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip
from photonloop.simulator.physics.photodiode import ELEMENTARY_CHARGE_C
from photonloop.simulator.truth import chip_truth

Figures = dict[str, Any]


def changed(parameters: ChipParameters, **parts: dict[str, Any]) -> ChipParameters:
    """Return `parameters` with the values of some parts replaced."""
    return parameters.model_copy(
        update={name: getattr(parameters, name).model_copy(update=values) for name, values in parts.items()}
    )


def lit(chip: Chip, *ports: int) -> NDArray[np.float32]:
    """Return one sample that lights `ports` fully."""
    inputs = np.zeros((1, chip.describe().input_ports), np.float32)
    inputs[0, list(ports)] = 1.0
    return inputs


def fringe(axes: Any, quick: bool) -> Figures:
    """Sweep the θ heater of the only interferometer of a two-port chip."""
    volts = np.linspace(0.0, 6.5, 14 if quick else 131)
    found = {}
    for preset in ("soi", "harsh"):
        chip = Chip(load_chip(preset, ports=2, stages=1, seed=1), threads=1)
        drives = np.zeros((volts.size, chip.describe().channels))
        drives[:, 0] = volts
        readings = chip.evaluate(drives, lit(chip, 0), "mesh0").values[:, 0]
        share = readings / readings.sum(axis=1, keepdims=True)
        axes.plot(volts**2, share[:, 0], label=f"{preset}, output 0")
        axes.plot(volts**2, share[:, 1], "--", color=axes.lines[-1].get_color(), label=f"{preset}, output 1")
        found[preset] = {"visibility": float(np.ptp(share[:, 0]))}
    axes.set(xlabel="V² [V²]", ylabel="share of the detected power")
    axes.legend(fontsize="small")
    return found


def crosstalk(axes: Any, quick: bool) -> Figures:
    """Heat one heater in the middle of an 8-port chip by its P_π, and show how all other phases change."""
    del quick
    quiet = changed(load_chip("soi", ports=8, stages=1, seed=1), dac={"bits": 0, "inl_lsb": 0.0, "noise_v": 0.0})
    chip = Chip(quiet, threads=1)
    stage = chip.describe().stages[0]
    column, top = 4, 4
    channel = next(theta for c, t, theta, _ in stage.layout if (c, t) == (column, top))
    drive = np.zeros(stage.channels)
    before = chip_truth.true_phases(chip, 0, drive)
    drive[channel] = to_drive(np.array(np.pi), chip.describe().drive)
    after = chip_truth.true_phases(chip, 0, drive)
    picture = np.full((stage.ports - 1, 2 * stage.ports), np.nan)
    for c, t, theta, phi in stage.layout:
        picture[t, 2 * c + 1] = 100 * (after.theta - before.theta)[theta] / np.pi
        picture[t, 2 * c] = 100 * (after.phi - before.phi)[phi - stage.groups["phi"][0]] / np.pi
    own = picture[top, 2 * column + 1]
    picture[top, 2 * column + 1] = np.nan
    most = float(np.nanmax(np.abs(picture)))
    image = axes.imshow(picture, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    axes.plot(2 * column + 1, top, "k*", markersize=12)
    axes.set(xlabel="half column: φ, θ, φ, θ, …", ylabel="upper mode of the interferometer")
    axes.figure.colorbar(image, ax=axes, label="change of the phase [% of π]")
    return {
        "own_rad": float(own * np.pi / 100),
        "below_percent": float(picture[top + 2, 2 * column + 1]),
        "above_percent": float(picture[top - 2, 2 * column + 1]),
        "largest_percent": most,
    }


def transient(axes: Any, quick: bool) -> Figures:
    """Read the first microseconds after a step of a heater of a two-port chip, heated and cooled."""
    samples = 50 if quick else 400
    parameters = changed(
        load_chip("soi", ports=2, stages=1, seed=1),
        clock={"settle_s": 0.0, "sample_s": 5e-8},
        photodiode={"bandwidth_hz": 0.0, "has_memory": False},
        adc={"bits": 0, "noise_lsb": 0.0},
        laser={"rin_db_per_hz": 0.0},
        heater={"offset_span_rad": 0.0},
    )
    chip = Chip(parameters, threads=1)
    stage = chip.describe().stages[0]
    low, high = np.zeros((2, 1, stage.channels))
    low[0, 0], high[0, 0] = to_drive(np.array([0.4, 0.6]) * np.pi, chip.describe().drive)
    time_us = np.arange(samples) * parameters.clock.sample_s * 1e6
    found = {}
    for name, held, setting in (("heating", low, high), ("cooling", high, low)):
        chip.apply(held[0])
        chip.wait(1e-3)
        readings = chip.evaluate(setting, np.repeat(lit(chip, 0), samples, axis=0), "mesh0").values[0, :, 0].astype(float)
        chip.apply(setting[0])
        chip.wait(1e-3)
        end = float(chip.evaluate(setting, lit(chip, 0), "mesh0").values[0, 0, 0])
        axes.plot(time_us, readings / end, label=name)
        found[name] = {"first": float(readings[0] / end), "last": float(readings[-1] / end)}
    for tau_s in (parameters.heater.rise_s, parameters.heater.fall_s):
        axes.axvline(1e6 * tau_s, color="grey", linewidth=0.6)
    axes.set(xlabel="time after the step [µs]", ylabel="reading / settled reading")
    axes.legend(fontsize="small")
    return found


def noise(axes: Any, quick: bool) -> Figures:
    """Repeat readings at many powers, and compare their spread with the sum of the noise sources."""
    repeats, powers = (64, 9) if quick else (512, 25)
    parameters = changed(load_chip("soi", ports=2, stages=1, seed=1), photodiode={"has_memory": False})
    chip = Chip(parameters, threads=1)
    amplitude = np.sqrt(np.logspace(-5, 0, powers)).astype(np.float32)
    inputs = np.repeat(np.stack((amplitude, np.zeros_like(amplitude)), axis=1), repeats, axis=0)
    drive = np.zeros((1, chip.describe().channels))
    values = chip.evaluate(drive, inputs, "mesh0").values[0].reshape(powers, repeats, 2).astype(float)
    mean, spread = values.mean(axis=1).ravel(), values.std(axis=1).ravel()
    axes.loglog(mean, spread, "o", markersize=3, label="measured")
    level, diode = chip.stages[0].levels, parameters.photodiode
    current = np.logspace(np.log10(max(mean.min(), 1e-10)), np.log10(mean.max()), 100)
    code = level.code_a
    parts = {
        "amplifier": np.full(current.size, level.thermal_a2**0.5),
        "shot noise": np.sqrt(2 * ELEMENTARY_CHARGE_C * diode.bandwidth_hz * current),
        "laser (RIN)": np.sqrt(10 ** (parameters.laser.rin_db_per_hz / 10) * diode.bandwidth_hz) * current,
        "converter": np.full(current.size, code * np.hypot(parameters.adc.noise_lsb, 1 / 12**0.5)),
    }
    for name, part in parts.items():
        axes.loglog(current, part, linewidth=0.8, label=name)
    axes.loglog(current, np.sqrt(sum(part**2 for part in parts.values())), "k", linewidth=1, label="sum")
    axes.set(xlabel="mean reading [A]", ylabel="standard deviation [A]", ylim=(0.3 * min(p.min() for p in parts.values()), None))
    axes.legend(fontsize="x-small")
    silent = float((values.std(axis=1) == 0).mean())
    return {"readings_without_variance": silent}


def allan(axes: Any, quick: bool) -> Figures:
    """Read one detector of a 4-port chip for a day, and show the Allan deviation of the reading over its mean."""
    interval_s, day_s = 10.0, 86_400.0
    count = 512 if quick else int(day_s / interval_s)
    found = {}
    for preset in ("soi", "harsh", "lab"):
        chip = Chip(load_chip(preset, ports=4, stages=1, seed=1), threads=1)
        rng = np.random.default_rng(0)
        drive = to_drive(2 * np.pi * rng.random((1, chip.describe().channels)), chip.describe().drive)
        chip.load_inputs("all", np.full((16, 4), 0.7, np.float32))
        series = np.empty(count)
        for k in range(count):
            chip.wait(max(0.0, k * interval_s - chip.status().clock_s))
            series[k] = chip.evaluate(drive, np.full((16, 4), 0.7, np.float32), "mesh0").values[0, :, 1].mean()
        series /= series.mean()
        lags = np.unique(np.logspace(0, np.log10(count // 3), 30).astype(int))
        deviation = np.array([allan_deviation(series, lag) for lag in lags])
        axes.loglog(lags * interval_s, deviation, "o-", markersize=3, label=preset)
        found[preset] = {"at_10_s": float(deviation[0]), "largest": float(deviation.max())}
    axes.set(xlabel="averaging time [s]", ylabel="Allan deviation of a reading / mean")
    axes.legend(fontsize="small")
    return found


def allan_deviation(series: NDArray[np.float64], lag: int) -> float:
    """Return the overlapping Allan deviation of `series` for averages over `lag` values."""
    sums = np.concatenate(([0.0], np.cumsum(series)))
    means = (sums[lag:] - sums[:-lag]) / lag
    return float(np.sqrt(0.5 * np.mean((means[lag:] - means[:-lag]) ** 2)))


def weight(axes: Any, quick: bool) -> Figures:
    """Sweep a ring of a bank of 5 wavelengths, and show the weights of its own and of the next wavelength."""
    volts = np.linspace(0.0, 6.0, 25 if quick else 241)
    found = {}
    for neighbours in (False, True):
        text = {"spectral_crosstalk": neighbours, "finesse": 30.0}
        parameters = changed(load_chip("ideal", ports=5, stages=1), mesh={"topology": "weight_bank", "outputs": 1}, ring=text)
        chip = Chip(parameters, threads=1)
        bank = chip.describe().stages[0]
        # The other rings are halfway between resonances.
        drives = np.full((volts.size, bank.channels), float(to_drive(np.array(0.2 * np.pi), chip.describe().drive)))
        drives[:, 2] = volts
        for port, style in ((2, "-"), (3, "--")):
            light = lit(chip, port)
            weights = chip.evaluate(drives, light, bank.name).values[:, 0, 0] / chip.stages[0].levels.ampere
            own = "own wavelength" if port == 2 else "next wavelength"
            axes.plot(volts**2, weights, style, label=f"{own}, {'with' if neighbours else 'without'} spectral crosstalk")
            found[f"{own}, {neighbours}"] = {"highest": float(weights.max()), "lowest": float(weights.min())}
    axes.set(xlabel="V² of ring 2 [V²]", ylabel="weight (drop - through)")
    axes.legend(fontsize="x-small")
    return found


PICTURES: dict[str, Callable[[Any, bool], Figures]] = {
    "fringe": fringe,
    "crosstalk": crosstalk,
    "transient": transient,
    "noise": noise,
    "allan": allan,
    "weight": weight,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/physics"), help="folder of the pictures")
    parser.add_argument("--only", nargs="+", choices=list(PICTURES), default=list(PICTURES))
    parser.add_argument("--quick", action="store_true", help="fewer points")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    args = parser.parse_args()
    mpl.rcParams["svg.hashsalt"] = "photonloop"  # equal pictures give equal files
    args.out.mkdir(parents=True, exist_ok=True)
    figures = {}
    for name in args.only:
        figure = Figure(figsize=(6.0, 3.6), layout="constrained")
        figures[name] = PICTURES[name](figure.add_subplot(), args.quick)
        figure.savefig(args.out / f"{name}.svg", metadata={"Date": None})
    if args.json:
        print(json.dumps(figures))
    else:
        for name, found in figures.items():
            print(f"{name}: {json.dumps(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
