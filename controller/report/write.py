"""From a run folder to its report.html."""

from __future__ import annotations

from pathlib import Path

from photonloop.controller.report.contents import read_contents
from photonloop.controller.report.page import page
from photonloop.controller.runs.run_folder import REPORT
from photonloop.protocols.atomic_files import write_atomically
from photonloop.protocols.config import ConfigError


def write_report(run: Path) -> Path:
    """Write `run`/report.html anew and return its path.

    Works at any time, also while the session runs or after it was killed: what is not there yet is said in a sentence.

    Raises
    ------
    ConfigError
        `run` is no run folder, or cannot be written to.
    """
    path = run / REPORT
    content = page(read_contents(run)).encode("utf-8")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ConfigError(f"report {path} cannot be written: {error.strerror or error}") from None
    return path
