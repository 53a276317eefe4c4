"""The file `calibration.json`: everything that a calibration found, with uncertainties.

    calibration_format, made, clock_s, conditions, options, device
    stages[]    name, method, settings, steady_inputs, noise, held_out, parameters, sigma, draws, troubles
    banks[]     name, settings, only_own, noise, held_out, values, sigma, influence_rad, influence_sigma, troubles

Values and their standard deviations are listed by kind and channel (`TwinParameters`). `draws` are float32 values in
base64. Structure and geometry are not in the file: they follow from the description of the device. null stands for NaN.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from photonloop.controller.calibration.calibrated_device import (
    Calibration,
    HeldOut,
    Method,
    RingCalibration,
    StageCalibration,
    Trouble,
    TroubleKind,
)
from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.calibration.ring_layout import ring_layout
from photonloop.controller.calibration.ring_values import RING_KINDS, RingValues, ring_shapes
from photonloop.controller.calibration.stage_troubles import exclusions
from photonloop.controller.calibration.twin_layout import TwinLayout, twin_layout
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.calibration.twin_parameters import KINDS, TwinParameters, pack, shapes
from photonloop.controller.device.device_difference import chip_difference
from photonloop.protocols.atomic_files import write_atomically
from photonloop.protocols.config import ConfigError, validate
from photonloop.protocols.device import DeviceDescription, StageDescription

CALIBRATION_FORMAT = 1
"""Version of the file's format, and of the meaning of the parameters."""

Array = NDArray[np.float64]


def _from_null(value: Any) -> Any:
    return float("nan") if value is None else value


def _to_null(value: float) -> float | None:
    return value if np.isfinite(value) else None


_Number = Annotated[float, BeforeValidator(_from_null), PlainSerializer(_to_null)]
_Values = _Number | list[_Number] | list[list[_Number]]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DrawsEntry(_Model):
    """Posterior draws: little-endian float32 in C order, in base64."""

    shape: tuple[int, int]
    base64: str


class NoiseEntry(_Model):
    """`ReadingNoise`."""

    dark: float
    relative: float


class HeldOutEntry(_Model):
    """`HeldOut`."""

    residual: list[_Number]
    misfit: list[_Number]
    tvd: list[_Number]


class TroubleEntry(_Model):
    """`Trouble`."""

    kind: TroubleKind
    stage: str
    channels: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()
    detail: str = ""


class StageEntry(_Model):
    """`StageCalibration`."""

    name: str
    method: Method
    settings: Annotated[int, Field(ge=0)]
    steady_inputs: bool
    noise: NoiseEntry
    held_out: HeldOutEntry
    parameters: dict[str, _Values]
    sigma: dict[str, _Values]
    draws: DrawsEntry
    troubles: list[TroubleEntry] = []


class BankEntry(_Model):
    """`RingCalibration`."""

    name: str
    settings: Annotated[int, Field(ge=0)]
    only_own: bool
    noise: NoiseEntry
    held_out: HeldOutEntry
    values: dict[str, _Values]
    sigma: dict[str, _Values]
    influence_rad: _Values
    influence_sigma: _Values
    troubles: list[TroubleEntry] = []


class CalibrationFile(_Model):
    """`Calibration`."""

    calibration_format: int
    made: str
    clock_s: float
    conditions: dict[str, str | float]
    options: CalibrationOptions
    device: DeviceDescription
    stages: list[StageEntry]
    banks: list[BankEntry] = []


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration to `path`, atomically.

    Raises
    ------
    OSError
        The file cannot be written; an older file is unchanged.
    """
    content = CalibrationFile(
        calibration_format=CALIBRATION_FORMAT,
        made=calibration.made,
        clock_s=calibration.clock_s,
        conditions=calibration.conditions,
        options=calibration.options,
        device=calibration.device,
        stages=[_stage_entry(found) for found in calibration.stages],
        banks=[_bank_entry(found) for found in calibration.banks],
    )
    write_atomically(path, content.model_dump_json(indent=1).encode())


def load_calibration(path: str | Path) -> Calibration:
    """Read a calibration.

    Parameters
    ----------
    path
        The file, as `photonloop calibrate` writes it.

    Raises
    ------
    ConfigError
        The file is missing, damaged, of another version, or contradicts itself.

    Examples
    --------
    >>> calibration = load_calibration("calibration.json")  # doctest: +SKIP
    >>> phases = calibration.phases_of_volts(drive_v)  # doctest: +SKIP
    """
    path = Path(path)
    where = f"calibration {path}"
    try:
        tables = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{where} does not exist: photonloop calibrate DEVICE -o {path}") from None
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise ConfigError(f"{where} is not JSON ({error}): it is damaged, so calibrate again or put back a copy") from None
    version = tables.get("calibration_format") if isinstance(tables, dict) else None
    if version is None:
        raise ConfigError(f"{where} is no calibration: it has no key 'calibration_format'")
    if version != CALIBRATION_FORMAT:
        raise ConfigError(
            f"{where} has format {version!r}, but this version of photonloop reads format {CALIBRATION_FORMAT}: calibrate again"
        )
    content = validate(CalibrationFile, tables, where)
    return Calibration(
        device=content.device,
        made=content.made,
        clock_s=content.clock_s,
        conditions=content.conditions,
        stages=tuple(_stage(content.device, entry, where) for entry in content.stages),
        banks=tuple(_bank(content.device, entry, where) for entry in content.banks),
        options=content.options,
    )


def check_same_device(calibration: Calibration, description: DeviceDescription, *, allow_other: bool = False) -> str | None:
    """Refuse a calibration of another device.

    Parameters
    ----------
    calibration
        The calibration.
    description
        The device that it is to be used with.
    allow_other
        Accept another device, as long as the calibrated stages have the same structure.

    Returns
    -------
        How the device differs, if it is accepted; None for the same device.

    Raises
    ------
    ConfigError
        It is another device.
    """
    found = chip_difference(calibration.device, description)
    if found is None:
        return None
    if not allow_other:
        raise ConfigError(
            f"the calibration is of another device: {found.detail}. Calibrate this one, or add --other-device to use it anyway"
        )
    if not found.same_shape:
        raise ConfigError(f"the calibration cannot be used with this device: {found.detail}. Calibrate this device")
    return found.detail


def _stage_entry(found: StageCalibration) -> StageEntry:
    return StageEntry(
        name=found.stage.name,
        method=found.method,
        settings=found.settings,
        steady_inputs=found.steady_inputs,
        noise=NoiseEntry(dark=found.noise.dark, relative=found.noise.relative),
        held_out=_held_out_entry(found.held_out),
        parameters=_by_kind(found.parameters, KINDS),
        sigma=_by_kind(found.sigma, KINDS),
        draws=DrawsEntry(
            shape=(len(found.draws), pack(found.parameters).size),
            base64=base64.b64encode(found.draws.astype("<f4").tobytes()).decode(),
        ),
        troubles=[TroubleEntry(**dataclasses.asdict(trouble)) for trouble in found.troubles],
    )


def _bank_entry(found: RingCalibration) -> BankEntry:
    return BankEntry(
        name=found.stage.name,
        settings=found.settings,
        only_own=found.only_own,
        noise=NoiseEntry(dark=found.noise.dark, relative=found.noise.relative),
        held_out=_held_out_entry(found.held_out),
        values=_by_kind(found.values, RING_KINDS),
        sigma=_by_kind(found.sigma, RING_KINDS),
        influence_rad=found.influence_rad.tolist(),
        influence_sigma=found.influence_sigma.tolist(),
        troubles=[TroubleEntry(**dataclasses.asdict(trouble)) for trouble in found.troubles],
    )


def _held_out_entry(found: HeldOut) -> HeldOutEntry:
    return HeldOutEntry(residual=found.residual.tolist(), misfit=found.misfit.tolist(), tvd=found.tvd.tolist())


def _stage(device: DeviceDescription, entry: StageEntry, where: str) -> StageCalibration:
    where = f"{where}: stage {entry.name}"
    troubles = tuple(Trouble(**trouble.model_dump()) for trouble in entry.troubles)
    stage = exclusions(troubles).stage(_described(device, entry.name, where))
    try:
        layout = twin_layout(device, stage)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    return StageCalibration(
        stage=stage,
        method=entry.method,
        layout=layout,
        parameters=TwinParameters(**_arrays(shapes(layout), entry.parameters, f"{where}: parameters")),
        sigma=TwinParameters(**_arrays(shapes(layout), entry.sigma, f"{where}: sigma")),
        draws=_draws(layout, entry.draws, where),
        noise=ReadingNoise(entry.noise.dark, entry.noise.relative),
        held_out=_held_out(entry.held_out, where),
        settings=entry.settings,
        steady_inputs=entry.steady_inputs,
        troubles=troubles,
    )


def _bank(device: DeviceDescription, entry: BankEntry, where: str) -> RingCalibration:
    where = f"{where}: weight bank {entry.name}"
    stage = _described(device, entry.name, where)
    try:
        layout = ring_layout(device, stage)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    both = layout.channels, layout.channels
    square: dict[str, tuple[int, ...]] = {"influence_rad": both, "influence_sigma": both}
    return RingCalibration(
        stage=stage,
        layout=layout,
        values=RingValues(**_arrays(ring_shapes(layout), entry.values, f"{where}: values")),
        sigma=RingValues(**_arrays(ring_shapes(layout), entry.sigma, f"{where}: sigma")),
        **_arrays(square, {kind: getattr(entry, kind) for kind in square}, where),
        only_own=entry.only_own,
        noise=ReadingNoise(entry.noise.dark, entry.noise.relative),
        held_out=_held_out(entry.held_out, where),
        settings=entry.settings,
        troubles=tuple(Trouble(**trouble.model_dump()) for trouble in entry.troubles),
    )


def _described(device: DeviceDescription, name: str, where: str) -> StageDescription:
    try:
        return device.stages[device.stage_index(name)]
    except KeyError:
        raise ConfigError(f"{where} is not a stage of its device: the file is damaged, so calibrate again") from None


def _held_out(entry: HeldOutEntry, where: str) -> HeldOut:
    lengths = {len(entry.residual), len(entry.misfit), len(entry.tvd)}
    if len(lengths) > 1:
        raise ConfigError(f"{where}: held_out has lists of different lengths, {sorted(lengths)}: calibrate again")
    return HeldOut(*(np.array(values, np.float64) for values in (entry.residual, entry.misfit, entry.tvd)))


def _by_kind(values: TwinParameters | RingValues, kinds: tuple[str, ...]) -> dict[str, Any]:
    return {kind: np.asarray(getattr(values, kind)).tolist() for kind in kinds}


def _arrays(shapes: dict[str, tuple[int, ...]], values: dict[str, Any], where: str) -> dict[str, Any]:
    """Return arrays of the given shapes, and numbers for the shape ()."""
    if missing := [kind for kind in shapes if kind not in values]:
        raise ConfigError(f"{where} lacks {', '.join(missing)}: calibrate again")
    found: dict[str, Any] = {}
    for kind, shape in shapes.items():
        try:
            array = np.asarray(values[kind], np.float64)
        except ValueError:
            raise ConfigError(f"{where}.{kind} has lists of different lengths: calibrate again") from None
        if array.shape != shape:
            raise ConfigError(f"{where}.{kind} has shape {array.shape}, but the stage has {shape}: calibrate again")
        found[kind] = array if shape else float(array)
    return found


def _draws(layout: TwinLayout, entry: DrawsEntry, where: str) -> Array:
    parameters = sum(int(np.prod(shape)) for shape in shapes(layout).values())
    try:
        flat = np.frombuffer(base64.b64decode(entry.base64, validate=True), "<f4")
    except ValueError:
        raise ConfigError(f"{where}: draws is not base64: the file is damaged, so calibrate again") from None
    if entry.shape[1] != parameters or flat.size != entry.shape[0] * parameters:
        raise ConfigError(
            f"{where}: draws has {flat.size} numbers for shape {entry.shape}, but the stage has {parameters} parameters: "
            "calibrate again"
        )
    return flat.reshape(entry.shape).astype(np.float64)
