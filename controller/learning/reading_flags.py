"""Warnings of flagged readings, once per layer and kind of flag."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import FLAG_SATURATED, FLAG_UNSETTLED


class FlagWarnings:
    """Makes the warnings of flagged readings, and keeps a record of the flags already reported for each layer."""

    def __init__(self) -> None:
        self._warned: dict[str, int] = {}

    def new_warning(self, layer: str, flags: NDArray[np.uint32], occasion: str) -> str | None:
        """Return a warning if readings of `layer` have a flag that was not reported before, else None.

        Parameters
        ----------
        layer
            Name of the layer.
        flags
            Bitwise or of FLAG_*, shape (settings, tap ports).
        occasion
            What the readings were for, as in "of update 12".
        """
        seen = int(np.bitwise_or.reduce(flags, axis=None))
        warned = self._warned.get(layer, 0)
        new = seen & ~warned
        if not new:
            return None
        self._warned[layer] = warned | seen
        unknown = new & ~(FLAG_SATURATED | FLAG_UNSETTLED)
        sentences = [_sentence(flags, flag) for flag in (FLAG_SATURATED, FLAG_UNSETTLED, unknown) if new & flag]
        return f"{layer}: readings {occasion}: {', and '.join(sentences)}; reported once per layer"


def _sentence(flags: NDArray[np.uint32], flag: int) -> str:
    """Return how many detectors and settings have `flag`, as in "3 of 64 detectors saturated in 2 of 16 settings"."""
    flagged = (flags & flag) != 0
    settings, detectors = flagged.shape
    places = f" in {flagged.any(axis=1).sum()} of {settings} settings" if settings > 1 else ""
    if flag == FLAG_UNSETTLED:
        return f"taken before they had settled{places}"
    word = "saturated" if flag == FLAG_SATURATED else f"flagged {flag:#x}"
    return f"{flagged.any(axis=0).sum()} of {detectors} detectors {word}{places}"
