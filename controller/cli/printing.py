"""Print messages on standard error and results on standard output.

A closed pipe or terminal is not an error: a session that runs through the night may outlive both.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import Any, TextIO


class PipeTolerantStream:
    """A text stream that goes quiet, without an error, once nobody reads it: a closed pipe, a terminal that is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write `text` if anybody reads it."""
        try:
            self._stream.write(text)
        except OSError:
            _to_nobody(self._stream)
        return len(text)

    def flush(self) -> None:
        """Flush, likewise."""
        try:
            self._stream.flush()
        except OSError:
            _to_nobody(self._stream)

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self._stream.fileno()


def print_message(text: str) -> None:
    """Print one line on standard error."""
    stream = PipeTolerantStream(sys.stderr)
    stream.write(text + "\n")
    stream.flush()


def print_lines(*lines: str) -> None:
    """Print lines on standard output. A closed pipe or terminal is ignored; a full disk raises OSError."""
    try:
        print("\n".join(lines), flush=True)
    except OSError as error:
        if error.errno not in {errno.EPIPE, errno.EIO}:
            raise
        _to_nobody(sys.stdout)


def print_json(answer: Any) -> None:
    """Print one JSON object on standard output."""
    print_lines(json.dumps(answer, ensure_ascii=False))


def _to_nobody(stream: TextIO) -> None:
    """Lead a broken stream to the null device: what is left in its buffer would be an error again when Python ends."""
    nobody = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nobody, stream.fileno())
    os.close(nobody)
