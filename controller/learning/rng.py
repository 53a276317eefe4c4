"""Every random number of a session, from one seed, by purpose: nothing drawn for one purpose shifts another.

A stream is a function of its numbers, never of what was drawn before. So a resumed session draws for update 5000 what the
unbroken one drew, without replaying anything.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of what a seed means: never change one, only add."""

    PROTOTYPES = 1
    START = 2
    PROBE_STEP = 3
    SHUFFLE = 4
    PROBES = 5
    ACCURACY_ROWS = 6


def rng_stream(seed: int, purpose: Purpose, *numbers: int) -> np.random.Generator:
    """Return the generator for `purpose`, for these numbers (layer, epoch, update …)."""
    return np.random.default_rng([seed, purpose, *numbers])
