"""`docs/calibration.md` agrees with the code: the table of the prior, and the names of defects."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import twin_prior_table

from photonloop.controller.calibration.calibrated_device import TroubleKind
from photonloop.controller.calibration.twin_parameters import nominal_prior

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "calibration.md"


def test_the_table_of_the_prior_is_that_of_the_script() -> None:
    layout = twin_prior_table.example_layout()
    assert "\n".join(twin_prior_table.table(layout, nominal_prior(layout, 1.0))) in DOCUMENT.read_text(encoding="utf-8")


def test_every_trouble_is_in_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for kind in get_args(TroubleKind):
        assert f"| `{kind}` |" in text, kind
