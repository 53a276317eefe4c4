"""Errors of weights by spectral crosstalk of a weight bank's rings, for several numbers of wavelengths.

    python scripts/studies/bank_crosstalk.py [--json] [--quick] [--finesse 30]

The wavelengths are equally spaced over one free spectral range. Phases are set for uniformly random weights of
independent rings, and the rms difference of the actual weights from them is computed in four ways:

- powers: the model of the simulator with `ring.spectral_crosstalk`, for weights in [-0.9, 0.9].
- full range: the same for all weights that a ring can have. Rings with weights near -1 are detuned by up to half a free
  spectral range, and meet other wavelengths on their way there.
- re-coupled: with the light that rings couple from the drop bus back into the row, added as powers. For two rings it is
  the mean over all lengths of waveguide between them.
- interference: the model of the simulator with `ring.bus_interference`, with random phases between the rings.

The sketch in the last column was published without the range of its weights. It agrees with `powers`, so its range was
about [-0.9, 0.9]; interference is missing in it.
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
    powers: float
    full_range: float
    recoupled: float
    interference: float
    sketch: float | None


def recoupled_weights(phase_rad: NDArray[np.float64], ring: Ring) -> NDArray[np.float64]:
    """Return the weights of rows, (rows, M), with powers that go back and forth between rings on both buses."""
    single = transmissions(phases_at_rings(phase_rad), ring)
    reflected, passed = np.zeros(phase_rad.shape), np.ones(phase_rad.shape)
    for m in reversed(range(phase_rad.shape[-1])):
        dropping, through = single.drop_port[..., m], single.through_port[..., m]
        rounds = 1.0 / (1.0 - dropping * reflected)
        passed = through * passed * rounds
        reflected = dropping + through**2 * reflected * rounds
    return reflected - passed


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
    bus_rad = rng.uniform(0.0, 2.0 * np.pi, weights.shape)
    every = rng.uniform(lowest, 1.0, weights.shape)
    return CrosstalkErrors(
        wavelengths=wavelengths,
        powers=rms(row_transmissions(phase_rad, ring).weights - weights),
        full_range=rms(row_transmissions(phases_of(every, alone), ring).weights - every),
        recoupled=rms(recoupled_weights(phase_rad, ring) - weights),
        interference=rms(row_transmissions(phase_rad, ring, None, bus_rad).weights - weights),
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
    print(f"{'wavelengths':>11}{'powers':>9}{'full range':>12}{'re-coupled':>12}{'interference':>14}{'sketch':>9}")
    for row in rows:
        sketch = "" if row.sketch is None else f"{row.sketch:.3f}"
        found = f"{row.powers:>9.4f}{row.full_range:>12.4f}{row.recoupled:>12.4f}{row.interference:>14.4f}"
        print(f"{row.wavelengths:>11}{found}{sketch:>9}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
