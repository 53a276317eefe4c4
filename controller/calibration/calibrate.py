"""Calibrate a device: from a device string to `calibration.json`.

`calibrate` does what `photonloop calibrate` does, for scripts and notebooks.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path

from photonloop.controller.calibration.calibrated_device import Calibration
from photonloop.controller.calibration.calibration_file import save_calibration
from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.calibration.calibration_procedure import CalibratedStages, calibrate_stages
from photonloop.controller.calibration.calibration_progress import (
    CalibrationListener,
    ProgressCounter,
    SilentCalibrationListener,
)
from photonloop.controller.calibration.method_choice import planned
from photonloop.controller.calibration.reading_record import (
    ReadingRecord,
    RecordHeader,
    new_record,
    open_record,
    parts_folder,
    utc_now,
)
from photonloop.controller.calibration.recorded_device import RecordedDevice
from photonloop.controller.device.address import DeviceAddress, with_absolute_path
from photonloop.controller.device.device_difference import difference
from photonloop.controller.device.open_device import OpenDevice, check_device, open_device
from photonloop.controller.device.processes import VirtualChip
from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.report.calibration_writer import write_calibration_report
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription
from photonloop.protocols.errors import DeviceError


def calibrate(
    device: str,
    output: str | Path = "calibration.json",
    options: CalibrationOptions | None = None,
    *,
    chip: VirtualChip | None = None,
    resume: bool = False,
    keep_readings: bool = False,
    listener: CalibrationListener | None = None,
    stop: Stop | None = None,
    keys: Path | None = None,
) -> Calibration:
    """Calibrate a device and write the result to a file.

    Everything that is read is kept in the folder `output`.parts until the file is written.

    Parameters
    ----------
    device
        Device string.
    output
        The file. An older one is replaced at the end.
    options
        Method, stages and seed; None: the defaults.
    chip
        Ports, stages and seed of a virtual chip.
    resume
        Continue a calibration that was stopped or killed, from its recorded readings.
    keep_readings
        Keep the folder of the readings.
    listener
        Receives messages and progress.
    stop
        Stops the calibration when requested.
    keys
        Folder of the CURVE keys for a device server.

    Raises
    ------
    ConfigError
        The options, the output and the device do not fit together; nothing was applied to the device.
    DeviceError
        The device cannot be opened, or failed and reconnecting did not help. The calibration can be resumed.
    SessionStopped
        `stop` was requested. The calibration can be resumed.

    Examples
    --------
    >>> calibrate("sim:soi", "calibration.json", chip=VirtualChip(ports=4))  # doctest: +SKIP
    """
    address, output = with_absolute_path(check_device(device, keys)), Path(output)
    check_output(output)
    stop, reporter = stop or Stop(), _Reporter(listener or SilentCalibrationListener())
    again = f"photonloop calibrate {device} -o {output} --resume"
    with ExitStack() as resources:
        record = _recorded(parts_folder(output), options, again, resume=resume)
        if record is not None:
            resources.enter_context(closing(record))
            options, chip = record.header.options, _same_chip(address, chip, record.header.chip)
        options, chip = options or CalibrationOptions(), chip or VirtualChip()
        lease_key = record.header.lease_key if record else secrets.token_hex(16)

        def opener() -> OpenDevice:
            return open_device(
                address, write=True, chip=chip, label="photonloop calibrate", lease_key=lease_key, keys=keys, stop=stop
            )

        link = ReconnectingDevice(opener, stop=stop, on_lost=reporter, on_restored=reporter, on_waiting=reporter)
        with closing(link):
            plans, _ = planned(link.description, options)
            if record is None:
                made = new_record(parts_folder(output), _header(address, chip, options, lease_key, link.description))
                record = resources.enter_context(closing(made))
            reporter.record = record
            _check_same(record, link.description)
            counter = ProgressCounter(reporter.listener, sum(plan.settings for plan in plans))
            recorded = RecordedDevice(link, record, stop, counter.read)
            found = _measured(recorded, record, counter, reporter, stop, again)
        save_calibration(output, found.calibration)
        reporter(f"calibration {output}: {counter.settings} settings")
        _write_report(output, found, reporter, stop)
        if not keep_readings:
            record.delete()
    return found.calibration


def _header(
    address: DeviceAddress, chip: VirtualChip, options: CalibrationOptions, lease_key: str, device: DeviceDescription
) -> RecordHeader:
    return RecordHeader(began=utc_now(), address=str(address), chip=chip, options=options, lease_key=lease_key, device=device)


def check_output(output: Path) -> None:
    """Refuse a path that cannot be written to.

    Raises
    ------
    ConfigError
        It is a folder, or its folder does not exist or is write-protected.
    """
    if output.is_dir():
        raise ConfigError(f"output {output} is a folder: give the path of a file")
    if not output.parent.is_dir():
        raise ConfigError(f"output {output} cannot be written: the folder {output.parent} does not exist")
    if not os.access(output.parent, os.W_OK):
        raise ConfigError(f"output {output} cannot be written: the folder {output.parent} is write-protected")


class _Reporter:
    """Passes messages on to a listener and, once there is one, to the log of the record."""

    def __init__(self, listener: CalibrationListener) -> None:
        self.listener = listener
        self.record: ReadingRecord | None = None

    def __call__(self, text: str) -> None:
        if self.record is not None:
            self.record.log(text)
        self.listener.message(text)


def _measured(
    device: RecordedDevice, record: ReadingRecord, counter: ProgressCounter, reporter: _Reporter, stop: Stop, again: str
) -> CalibratedStages:
    """Return the calibration; readings that were recorded before an error or a stop are kept for `--resume`."""
    if record.recorded:
        reporter(f"resuming the calibration that began at {record.header.began}")
    try:
        with stop.at_once(""):
            return calibrate_stages(device, record.header.options, counter, reporter)
    except SessionStopped:
        if record.recorded == 0:
            record.delete()
            raise
        raise SessionStopped(f"stopped on request after {counter.settings} settings: continue with {again}") from None
    except DeviceError as error:
        if error.outcome == "not_applied" and record.recorded == 0:
            record.delete()
        else:
            reporter(f"the {counter.settings} settings read so far are kept: continue with {again}")
        raise


def _write_report(output: Path, found: CalibratedStages, reporter: _Reporter, stop: Stop) -> None:
    """Write the report beside the calibration; the calibration is good without it."""
    try:
        with stop.at_once("while the report was written"):
            report = write_calibration_report(output, found.calibration, found.evidence)
    except (ConfigError, OSError, SessionStopped) as error:
        reporter(f"warning: the calibration is written, but its report is not ({error})")
    else:
        reporter(f"report {report}")


def _recorded(folder: Path, options: CalibrationOptions | None, again: str, *, resume: bool) -> ReadingRecord | None:
    """Return the record of a calibration to be resumed; None for a new one.

    Raises
    ------
    ConfigError
        There is a record and it is not to be resumed, there is none although one is to be resumed, or it has other
        options.
    """
    if not folder.exists():
        if resume:
            raise ConfigError(f"there is nothing to resume: {folder} does not exist, so leave --resume out")
        return None
    if not resume:
        raise ConfigError(
            f"{folder} has readings of a calibration that was not finished: continue it with {again}, or delete the folder"
        )
    record = open_record(folder)
    begun = record.header.options
    for name in sorted(options.model_fields_set) if options else []:
        if getattr(options, name) != getattr(begun, name):
            record.close()
            raise ConfigError(
                f"{name} is {getattr(options, name)!r}, but the calibration in {folder} was begun with {getattr(begun, name)!r}: "
                f"leave --{name} out, or delete the folder to begin anew"
            )
    return record


def _same_chip(address: DeviceAddress, given: VirtualChip | None, before: VirtualChip) -> VirtualChip:
    """Return ports, stages and seed of the virtual chip of a resumed calibration; those that are given count."""
    if address.kind != "sim" or address.is_chip_file:
        return VirtualChip()
    given = given or VirtualChip()
    values = {name: value for name, value in asdict(given).items() if value is not None}
    return replace(before, **values)


def _check_same(record: ReadingRecord, description: DeviceDescription) -> None:
    found = difference(record.header.device, description)
    if found is not None:
        raise ConfigError(
            f"the calibration in {record.folder} was begun on another device: {found.detail}. Reconnect that one, or delete the "
            "folder to begin anew"
        )
