"""Processes that hold a device: a simulator or the instruments of a station, each behind a device server."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

from photonloop.controller.device.address import DeviceAddress
from photonloop.controller.stopping import Stop
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.process import module_command

START_TIMEOUT_S = 180.0
"""Time for a process to announce its address. After an installation a simulator compiles its kernels first."""

SIMULATOR_END_TIMEOUT_S = 3.0

LAB_END_TIMEOUT_S = 20.0
"""Time for a station's process to end, which ramps all outputs to 0 V before."""

_POLL_S = 0.1
"""Seconds between two checks whether the user wants to stop, while a process starts."""


@dataclass(frozen=True)
class VirtualChip:
    """Ports, stages and seed of a virtual chip; None leaves a value to the preset or the chip file."""

    ports: int | None = None
    stages: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class DeviceProcess:
    """A running process that holds a device.

    Parameters
    ----------
    process
        The process.
    stderr_file
        A file that collects its standard error.
    address
        Address of its device server.
    end_timeout_s
        Time for it to end after SIGTERM, before it is killed.
    """

    process: subprocess.Popen[str]
    stderr_file: IO[str]
    address: str = ""
    end_timeout_s: float = SIMULATOR_END_TIMEOUT_S

    def end(self) -> None:
        """Terminate the process, and kill it if it does not end in time. Ending twice is harmless."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            if not self.ends_within(self.end_timeout_s):
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def ends_within(self, timeout_s: float) -> bool:
        """Wait for the process to end by itself; return whether it did."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_error_line(self) -> str:
        """Return the last line of the process's standard error, or an empty text."""
        self.stderr_file.seek(0)
        lines = self.stderr_file.read().strip().splitlines()
        return lines[-1] if lines else ""


class ProcessStartError(Exception):
    """A process did not announce itself.

    Parameters
    ----------
    error_line
        The last line of its standard error, or an empty text.
    exit_code
        Its exit code; None if it did not end by itself.
    """

    def __init__(self, error_line: str, exit_code: int | None) -> None:
        super().__init__(error_line)
        self.error_line = error_line
        self.exit_code = exit_code


def simulator_command(chip: str, size: VirtualChip) -> list[str]:
    """Return the command that starts a simulator process for the preset or chip file `chip`."""
    command = module_command("photonloop.simulator", "--chip", chip, "--parent", str(os.getpid()))
    for option, value in (("--ports", size.ports), ("--stages", size.stages), ("--seed", size.seed)):
        if value is not None:
            command += [option, str(value)]
    return command


def start_process(
    address: DeviceAddress, size: VirtualChip | None = None, options: Sequence[str] = (), *, stop: Stop | None = None
) -> DeviceProcess:
    """Start the process of a virtual chip or a station, and return it once it has announced its address.

    Parameters
    ----------
    address
        A device of kind "sim" or "lab".
    size
        Ports, stages and seed of a virtual chip.
    options
        Further options of the process's command line.
    stop
        Ends the wait.

    Raises
    ------
    ConfigError
        The preset, chip file or station file cannot be used. The message is that of the process.
    DeviceError
        "transport" if the process ends or does not announce an address in time, or if an instrument does not answer or
        is in use; "device" if an instrument reports an error.
    SessionStopped
        `stop` was requested meanwhile. The process is ended.
    """
    if address.kind == "lab":
        return _start_station(address, options, stop or Stop())
    command = [*simulator_command(address.chip, size or VirtualChip()), *options]
    try:
        process, _ = launch(command, "address", stop or Stop())
    except ProcessStartError as error:
        if error.error_line and error.exit_code in {1, 2}:
            raise ConfigError(error.error_line) from None
        raise DeviceError("transport", f"the simulator for {address} did not start: {_reason(error)}") from None
    return process


def _start_station(address: DeviceAddress, options: Sequence[str], stop: Stop) -> DeviceProcess:
    command = module_command("photonloop.drivers", address.station_reference, "--parent", str(os.getpid()))
    try:
        process, _ = launch([*command, *options], "address", stop, LAB_END_TIMEOUT_S)
    except ProcessStartError as error:
        # The exit codes of photonloop.drivers.
        if error.error_line and error.exit_code == 1:
            raise DeviceError("transport", error.error_line) from None
        if error.error_line and error.exit_code == 2:
            raise ConfigError(error.error_line) from None
        if error.error_line and error.exit_code == 3:
            raise DeviceError("device", error.error_line) from None
        raise DeviceError("transport", f"the bench of {address} did not start: {_reason(error)}") from None
    return process


def _reason(error: ProcessStartError) -> str:
    return error.error_line or "it printed no error message"


def launch(
    command: Sequence[str], key: str, stop: Stop, end_timeout_s: float = SIMULATOR_END_TIMEOUT_S
) -> tuple[DeviceProcess, dict[str, Any]]:
    """Start a process that announces itself by one JSON line on its standard output.

    Parameters
    ----------
    command
        The command line.
    key
        The key of the announcement that holds the process's address.
    stop
        Ends the wait.
    end_timeout_s
        Time for the process to end after SIGTERM.

    Returns
    -------
    process, announcement
        The running process, and the JSON object that it printed.

    Raises
    ------
    ProcessStartError
        The process ended, did not print in time, or printed something else.
    SessionStopped
        `stop` was requested meanwhile. The process is ended.
    """
    stderr_file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - open as long as the process runs
    # In a session of its own, so that Ctrl-C reaches only the controller, which then ends the process.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr_file, text=True, start_new_session=True
    )
    started = DeviceProcess(process, stderr_file, end_timeout_s=end_timeout_s)
    try:
        announcement = json.loads(_read_line(process, START_TIMEOUT_S, stop))
        return replace(started, address=str(announcement[key])), announcement
    except (json.JSONDecodeError, KeyError, TypeError):
        ended = started.ends_within(2.0)
        started.end()
        raise ProcessStartError(started.last_error_line(), process.returncode if ended else None) from None
    except BaseException:
        started.end()
        raise


def _read_line(process: subprocess.Popen[str], timeout_s: float, stop: Stop) -> str:
    """Return the first line of a process's output, or an empty text if none comes in time.

    Raises
    ------
    SessionStopped
        `stop` was requested meanwhile.
    """
    assert process.stdout is not None
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        stop.check("while the device was starting")
        ready, _, _ = select.select([process.stdout], [], [], _POLL_S)
        if ready:
            return process.stdout.readline()
    return ""
