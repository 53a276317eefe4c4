"""Warnings of flagged readings, once per layer and kind of flag."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import FLAG_SATURATED, FLAG_UNSETTLED

_WORDS = {FLAG_SATURATED: "are saturated", FLAG_UNSETTLED: "were taken before they had settled"}


class FlagWarnings:
    """Makes the warnings of flagged readings, and keeps a record of the flags already reported for each layer."""

    def __init__(self) -> None:
        self._warned: dict[str, int] = {}

    def new_warning(self, layer: str, flags: NDArray[np.uint32] | int, occasion: str) -> str | None:
        """Return a warning if readings of `layer` have a flag that was not reported before, else None.

        Parameters
        ----------
        layer
            Name of the layer.
        flags
            Bitwise or of FLAG_*, of one setting or of several.
        occasion
            What the readings were for, as in "of update 12".
        """
        seen = flags if isinstance(flags, int) else int(np.bitwise_or.reduce(flags))
        warned = self._warned.get(layer, 0)
        new = seen & ~warned
        if not new:
            return None
        self._warned[layer] = warned | seen
        words = [word for flag, word in _WORDS.items() if new & flag] or [f"are flagged {new:#x}"]
        return f"{layer}: readings {occasion} {' and '.join(words)}; reported once per layer"
