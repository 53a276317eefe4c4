"""What a device flags about its own readings, told once a layer: a warning that comes with every update is not read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import FLAG_SATURATED, FLAG_UNSETTLED

_WORDS = {FLAG_SATURATED: "are saturated", FLAG_UNSETTLED: "were taken before they had settled"}


class FlagWatch:
    """Remembers what was flagged in which layer of a session."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def look(self, layer: str, flags: NDArray[np.uint32] | int, occasion: str) -> str | None:
        """Return a sentence on the flags of some settings where they show something new; None otherwise.

        Parameters
        ----------
        layer
            Name of the layer that was read.
        flags
            Bitwise or of FLAG_*, of one setting or of many.
        occasion
            What the readings were for, as in "of update 12".
        """
        seen = flags if isinstance(flags, int) else int(np.bitwise_or.reduce(flags))
        told = self._told.get(layer, 0)
        new = seen & ~told
        if not new:
            return None
        self._told[layer] = told | seen
        words = [word for flag, word in _WORDS.items() if new & flag] or [f"are flagged {new:#x}"]
        return f"{layer}: readings {occasion} {' and '.join(words)}; said once a layer"
