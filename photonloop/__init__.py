"""Train photonic neural networks on the chip itself, by forward evaluations only.

>>> import photonloop as pl
>>> calibration = pl.load_calibration("calibration.json")  # doctest: +SKIP

The functions are imported when they are first used, so that importing a part of the package stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from photonloop.controller.calibration.calibrate import calibrate
    from photonloop.controller.calibration.calibrated_device import Calibration
    from photonloop.controller.calibration.calibration_file import load_calibration, save_calibration
    from photonloop.controller.calibration.program_device import program

__all__ = ["Calibration", "calibrate", "load_calibration", "program", "save_calibration"]

_MODULES = {
    "Calibration": "photonloop.controller.calibration.calibrated_device",
    "calibrate": "photonloop.controller.calibration.calibrate",
    "load_calibration": "photonloop.controller.calibration.calibration_file",
    "program": "photonloop.controller.calibration.program_device",
    "save_calibration": "photonloop.controller.calibration.calibration_file",
}
"""Module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'photonloop' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
