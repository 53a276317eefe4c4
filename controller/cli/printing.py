"""Print messages on standard error and results on standard output.

A closed pipe or terminal is not an error: a session that runs overnight must continue without them.
"""

from __future__ import annotations

import errno
import json
import sys
from typing import Any

from photonloop.protocols.output_streams import PipeTolerantStream, discard_output


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
        discard_output(sys.stdout)


def print_json(answer: Any) -> None:
    """Print one JSON object on standard output."""
    print_lines(json.dumps(answer, ensure_ascii=False))
