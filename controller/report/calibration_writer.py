"""Write the report of a calibration, an HTML page beside calibration.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from photonloop.controller.calibration.calibrated_device import Calibration
from photonloop.controller.calibration.evidence import CalibrationEvidence
from photonloop.controller.report.calibration_banks import BankSection, bank_section
from photonloop.controller.report.calibration_fringes import MOST_FRINGES
from photonloop.controller.report.calibration_sections import StageSection, stage_section
from photonloop.controller.report.display_text import UNKNOWN, duration_text, thousands_text, time_text
from photonloop.controller.report.page_summary import device_identity, device_rows
from photonloop.controller.report.page_template import page_template
from photonloop.protocols.atomic_files import write_atomically
from photonloop.protocols.config import ConfigError


@dataclass(frozen=True)
class CalibrationPage:
    """The data of the page: header, one section per mesh and per weight bank, device and conditions."""

    title: str
    origin: str
    warnings: tuple[str, ...]
    tiles: tuple[tuple[str, str], ...]
    stages: tuple[StageSection, ...]
    banks: tuple[BankSection, ...]
    device: tuple[tuple[str, str], ...]
    conditions: tuple[tuple[str, str], ...]


def write_calibration_report(path: Path, calibration: Calibration, evidence: Sequence[CalibrationEvidence] = ()) -> Path:
    """Write the report of a calibration, replacing an older one, and return its path.

    Parameters
    ----------
    path
        The calibration file, such as calibration.json. The report has the same name with the ending .html.
    calibration
        The calibration.
    evidence
        Settings and fringes of its stages, in any order; stages without evidence are reported without these pictures.

    Raises
    ------
    ConfigError
        The report cannot be written.
    """
    report = path.with_suffix(".html")
    content = render_calibration(calibration, evidence).encode("utf-8")
    try:
        write_atomically(report, content)
    except OSError as error:
        raise ConfigError(f"report {report} cannot be written: {error.strerror or error}") from None
    return report


def render_calibration(calibration: Calibration, evidence: Sequence[CalibrationEvidence] = ()) -> str:
    """Return the report as one HTML document, with all text escaped; arguments as in `write_calibration_report`."""
    by_stage, unit = {part.stage: part for part in evidence}, calibration.device.readout.unit
    most_fringes = max(6, MOST_FRINGES // max(len(calibration.stages), 1))
    stages = tuple(
        stage_section(found, by_stage.get(found.stage.name), unit, f"stage{number}", most_fringes)
        for number, found in enumerate(calibration.stages)
    )
    banks = tuple(bank_section(found, unit, f"bank{number}") for number, found in enumerate(calibration.banks))
    several = len(stages) + len(banks) > 1
    page = CalibrationPage(
        title=f"Calibration of {calibration.device.name}",
        origin=" · ".join((device_identity(calibration.device), time_text(calibration.made))),
        warnings=tuple(
            f"Stage {stage.name}: {warning}" if several else warning for stage in (*stages, *banks) for warning in stage.warnings
        ),
        tiles=_tiles(calibration),
        stages=stages,
        banks=banks,
        device=device_rows(calibration.device),
        conditions=(
            ("clock of the device", duration_text(calibration.clock_s)),
            *((name, value if isinstance(value, str) else f"{value:.6g}") for name, value in calibration.conditions.items()),
        ),
    )
    return page_template("calibration.html.j2").render(page=page)


def _tiles(calibration: Calibration) -> tuple[tuple[str, str], ...]:
    everything = (*calibration.stages, *calibration.banks)
    tvd = np.concatenate([found.held_out.tvd for found in everything] or [np.empty(0)])
    tvd = tvd[np.isfinite(tvd)]
    residual = [float(np.median(found.held_out.residual)) for found in everything if found.held_out.residual.size]
    troubles = len(calibration.troubles)
    return (
        ("TVD of held-out settings", f"{np.median(tvd):.2%}" if tvd.size else UNKNOWN),
        ("Held-out residual", f"{max(residual):.3g} × noise" if residual else UNKNOWN),
        ("Settings", thousands_text(sum(found.settings for found in everything))),
        ("Troubles", str(troubles) if troubles else "none"),
    )
