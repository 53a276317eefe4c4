"""Errors of a weight bank's weights by spectral crosstalk, for several numbers of wavelengths in one free spectral range.

    python scripts/studies/bank_crosstalk.py [--json] [--quick] [--finesse 30]

Phases are set for uniformly random weights of independent rings, and the rms difference of the actual weights from them
is computed in four ways:

- chip: the model of the simulator (`weight_bank.row_transmissions`), for weights in [-0.9, 0.9].
- full range: the same for all weights that a ring can have. Rings of weights near -1 are detuned by half a free spectral
  range, so they pass other wavelengths on their way there.
- re-coupled: with the light that rings couple from the drop bus back into the row, added as powers. It is the mean over
  all lengths of waveguide between the rings.
- coherent: fields instead of powers. Light that two rings drop, or that goes around between two rings, interferes, with
  random phases of the waveguides between the rings.

The sketch in the last column was published without the range of its weights. It agrees with `chip`, so its range was
about [-0.9, 0.9].
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.physics.ring_rows import row_transmissions
from photonloop.simulator.physics.weight_bank import Ring, phases_of, transmissions

SKETCH = {3: 0.008, 5: 0.025, 8: 0.068, 16: 0.37}
"""Published rms errors at finesse 30, by number of wavelengths."""

LARGEST = 0.9
"""Largest absolute weight, unless the range is full."""


@dataclass(frozen=True)
class CrosstalkErrors:
    """Rms differences of weights from those of independent rings."""

    wavelengths: int
    chip: float
    full_range: float
    recoupled: float
    coherent: float
    sketch: float | None


def recoupled_weights(phase_rad: NDArray[np.float64], ring: Ring) -> NDArray[np.float64]:
    """Return the weights of rows, (rows, M), with powers that go back and forth between rings on both buses."""
    single = transmissions(phases_at_rings(phase_rad), ring)
    reflected, passed = np.zeros(phase_rad.shape), np.ones(phase_rad.shape)
    for m in reversed(range(phase_rad.shape[-1])):
        drop, through = single.drop_port[..., m], single.through_port[..., m]
        rounds = 1.0 / (1.0 - drop * reflected)
        passed = through * passed * rounds
        reflected = drop + through**2 * reflected * rounds
    return reflected - passed


def coherent_weights(phase_rad: NDArray[np.float64], ring: Ring, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the weights of rows, (rows, M), from fields. Light on the drop bus travels towards the first ring."""
    r, a = ring.coupler_field, ring.round_trip_field
    wave = np.exp(1j * phases_at_rings(phase_rad))
    around = 1.0 / (1.0 - r**2 * a * wave)
    through, drop = r * (1.0 - a * wave) * around, -(1.0 - r**2) * np.sqrt(a * wave) * around
    between = np.exp(2j * np.pi * rng.random(through.shape))
    reflected, passed = np.zeros(phase_rad.shape, complex), np.ones(phase_rad.shape, complex)
    for m in reversed(range(phase_rad.shape[-1])):
        back = reflected * between[..., m]
        rounds = 1.0 / (1.0 - drop[..., m] * back)
        passed = through[..., m] * passed * rounds
        reflected = drop[..., m] + through[..., m] ** 2 * back * rounds
    return np.abs(reflected) ** 2 - np.abs(passed) ** 2


def phases_at_rings(phase_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the phase of each wavelength at each ring [rad], shape (rows, wavelengths, rings)."""
    number = np.arange(phase_rad.shape[-1])
    return phase_rad[:, np.newaxis, :] + 2.0 * np.pi / number.size * (number[:, np.newaxis] - number)


def measured(wavelengths: int, finesse: float, rows: int) -> CrosstalkErrors:
    """Return the errors for `rows` rows of random weights."""
    rng, alone, ring = np.random.default_rng(wavelengths), Ring(finesse), Ring(finesse, spectral_crosstalk=True)
    weights = rng.uniform(-LARGEST, LARGEST, (rows, wavelengths))
    phase_rad = phases_of(weights, alone)
    lowest = float(transmissions(np.array(np.pi), alone).weights)
    every = rng.uniform(lowest, 1.0, weights.shape)
    return CrosstalkErrors(
        wavelengths=wavelengths,
        chip=rms(row_transmissions(phase_rad, ring).weights - weights),
        full_range=rms(row_transmissions(phases_of(every, alone), ring).weights - every),
        recoupled=rms(recoupled_weights(phase_rad, ring) - weights),
        coherent=rms(coherent_weights(phase_rad, ring, rng) - weights),
        sketch=SKETCH.get(wavelengths) if finesse == 30 else None,
    )


def rms(values: NDArray[np.float64]) -> float:
    """Return the root mean square of all values."""
    return float(np.sqrt(np.mean(values**2)))


def main() -> int:
    """Print the table or one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--finesse", type=float, default=30.0)
    parser.add_argument("--quick", action="store_true", help="fewer random weights: three digits become two")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = [measured(wavelengths, chosen.finesse, 500 if chosen.quick else 20000) for wavelengths in SKETCH]
    if chosen.json:
        print(json.dumps({"finesse": chosen.finesse, "errors": [asdict(row) for row in rows]}))
        return 0
    print(f"{'wavelengths':>11}{'chip':>9}{'full range':>12}{'re-coupled':>12}{'coherent':>10}{'sketch':>9}")
    for row in rows:
        sketch = "" if row.sketch is None else f"{row.sketch:.3f}"
        print(
            f"{row.wavelengths:>11}{row.chip:>9.4f}{row.full_range:>12.4f}{row.recoupled:>12.4f}{row.coherent:>10.4f}{sketch:>9}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
