"""Options of a calibration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MethodChoice = Literal["auto", "columns", "diagonal"]


class CalibrationOptions(BaseModel):
    """Options of `calibrate`.

    Parameters
    ----------
    method
        How meshes are calibrated; "auto": chosen by the description of the device.
    stage
        Name of the only stage to be calibrated; None: all.
    seed
        Seed of the random settings and inputs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: MethodChoice = "auto"
    stage: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
