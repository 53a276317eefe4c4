"""Random streams of a session: one seed, and an independent stream per purpose.

A stream depends on its numbers only, not on what was drawn before. A resumed session therefore draws the same numbers
for update 5000 as an uninterrupted one, without replaying the draws before it.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """Purpose of a random stream. Add new numbers, but never change one: seeds would give other sessions."""

    PROTOTYPES = 1
    START = 2
    PROBE_STEP = 3
    SHUFFLE = 4
    PROBES = 5
    ACCURACY_ROWS = 6
    CALIBRATION = 7
    CALIBRATION_CHECK = 8


def rng_stream(seed: int, purpose: Purpose, *numbers: int) -> np.random.Generator:
    """Return the generator for `purpose` and `numbers` (layer, epoch, update …)."""
    return np.random.default_rng([seed, purpose, *numbers])
