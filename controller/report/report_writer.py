"""Write report.html of a run folder."""

from __future__ import annotations

from pathlib import Path

from photonloop.controller.report.html_page import render_page
from photonloop.controller.report.run_contents import read_run_contents
from photonloop.controller.runs.run_folder import REPORT
from photonloop.protocols.atomic_files import write_atomically
from photonloop.protocols.config import ConfigError


def write_report(run: Path) -> Path:
    """Write `run`/report.html, replacing an older one, and return its path.

    The run may be in progress, stopped or finished. The report names the parts that do not exist yet.

    Raises
    ------
    ConfigError
        `run` is not a run folder, or the report cannot be written.
    """
    path = run / REPORT
    content = render_page(read_run_contents(run)).encode("utf-8")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ConfigError(f"report {path} cannot be written: {error.strerror or error}") from None
    return path
