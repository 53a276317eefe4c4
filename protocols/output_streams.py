"""Text streams whose reader may go away: a closed pipe, a terminal that was closed."""

from __future__ import annotations

import os
from typing import TextIO


class PipeTolerantStream:
    """A text stream that discards what is written to it, without an error, once its reader has gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write `text`, or discard it."""
        try:
            self._stream.write(text)
        except OSError:
            discard_output(self._stream)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or discard what is buffered."""
        try:
            self._stream.flush()
        except OSError:
            discard_output(self._stream)

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of the stream."""
        return self._stream.fileno()


def discard_output(stream: TextIO) -> None:
    """Redirect a stream whose reader has gone to the null device.

    Otherwise what is left in its buffer raises an error again when Python exits.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
