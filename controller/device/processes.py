"""Device strings: one word that says which device, everywhere a device is asked for.

sim                    a simulator process of preset `soi` beside the command, ending with it
sim:PRESET             the same of another preset
sim:chip.toml          the same of a chip file
tcp://HOST:PORT        any device server
ipc://PATH             the same on this machine
lab:station.toml       instruments on this machine, held by a process beside the command, ending with it
lab:station.toml?max_v=5&total_w=0.2
                       the same within limits of this session, which tighten those of the station
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from photonloop.controller.stopping import Stop
from photonloop.drivers.station.loading import load_reference
from photonloop.protocols.client.device_client import DeviceClient, connect
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import PhotonicDevice
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.process import module_command

_LOG = logging.getLogger(__name__)

START_TIMEOUT_S = 180.0
"""How long a simulator process may take to announce itself: the first start after an installation compiles its kernels."""

LAB_END_S = 20.0
"""Patience with a bench that is ramped down; it goes on doing so, and ends by itself, when this is over."""

_LOOK_S = 0.1
"""How often the wait for it looks whether the user wants to stop."""

LEASE_TTL_S = 5.0
"""How long a server keeps the chip hot for a controller it no longer hears from."""


@dataclass(frozen=True)
class VirtualChip:
    """What `sim…` is built to where the chip file leaves it open; None leaves it to the preset."""

    ports: int | None = None
    stages: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class DeviceProcess:
    """A running process with a device in it, a simulator or a bench; `said` collects its standard error."""

    process: subprocess.Popen[str]
    said: IO[str]
    address: str = ""
    patience_s: float = 3.0
    """How long it may take to end when told to."""

    def end(self) -> None:
        """End the process politely, then by force. Ending twice is harmless."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            if not self.ends_within(self.patience_s):
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def ends_within(self, timeout_s: float) -> bool:
        """Wait for the process to end by itself; True where it did."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_words(self) -> str:
        """Return the last line of its standard error, or nothing."""
        self.said.seek(0)
        lines = self.said.read().strip().splitlines()
        return lines[-1] if lines else ""


@dataclass(frozen=True)
class OpenDevice:
    """A connected device and the process behind it, where this command started one. Close it to make safe and end both."""

    device: PhotonicDevice
    process: DeviceProcess | None = None

    def close(self) -> None:
        """Make the device safe, let go of it and end the process. Closing twice is harmless."""
        try:
            self.device.close()
        except DeviceError as error:
            _LOG.warning("the device could not be closed in order: %s", error.detail)
        finally:
            if self.process is not None:
                self.process.end()


def check_device_string(string: str) -> None:
    """Refuse a device string of no known kind.

    Raises
    ------
    ConfigError
        One sentence that lists the kinds; for `lab:` also whatever is wrong with the station file.
    """
    if string == "sim" or string.startswith(("sim:", "tcp://", "ipc://")):
        return
    if string.startswith("lab:"):
        load_reference(string.removeprefix("lab:"))
        return
    raise ConfigError(
        f"device {string!r} is of no known kind: sim, sim:PRESET, sim:chip.toml, tcp://HOST:PORT, ipc://PATH or lab:station.toml"
    )


def open_device(
    string: str,
    *,
    write: bool,
    chip: VirtualChip | None = None,
    label: str = "photonloop",
    lease_key: str | None = None,
    keys: Path | None = None,
    clear: str | None = None,
    stop: Stop | None = None,
) -> OpenDevice:
    """Return the device that `string` names, connected.

    Parameters
    ----------
    string
        A device string.
    write
        Take the lease, to apply and evaluate; without it the device can be looked at only.
    chip
        Size and seed for `sim…`; ignored by every other kind.
    label
        Shown to others while this controller holds the lease.
    lease_key
        Identity of the writer over restarts: the same key takes its own lease over.
    keys
        Folder of CURVE keys, for servers off this machine.
    clear
        Name of a latched fault to be cleared on the way in, because a person said so.
    stop
        Ends the wait for a simulator that is starting, which the first time takes minutes.

    Raises
    ------
    ConfigError
        The string names nothing.
    SessionStopped
        `stop` was asked for before the device was open; nothing is left running.
    DeviceError
        "transport" where nobody answers (within 3 s at a network address), "lease" where another controller holds it,
        "interlock" where a fault is latched that this writer did not cause.
    """
    check_device_string(string)
    # One processor is the session's own: it prepares the next update while light flies.
    beside = ("--beside", "1") if write and string.startswith("sim") else ()
    process = start_process(string, chip or VirtualChip(), beside, stop=stop) if string.startswith(("sim", "lab:")) else None
    try:
        client = connect(process.address if process else string, label=label, lease_key=lease_key, keys=keys)
        if write:
            try:
                _take(client, lease_key, clear)
            except BaseException:
                client.close()
                raise
    except BaseException:
        if process is not None:
            process.end()
        raise
    return OpenDevice(client, process)


def _take(client: DeviceClient, lease_key: str | None, clear: str | None) -> None:
    """Become the writer. A fault that our own death left is cleared; any other one stays for a person to look into."""
    client.acquire(LEASE_TTL_S)
    if clear is not None:
        client.clear_fault(clear)
        return
    for fault in client.status().faults:
        if lease_key is None or fault.lease_key != lease_key:
            first = "resume the run that caused it, or look" if fault.lease_key else "look"
            raise DeviceError(
                "interlock",
                f"the device has latched the fault {fault.name!r} ({fault.detail}): {first} into it and clear it with "
                f"photonloop describe {client.address} --clear-fault {fault.name}",
            )
        client.clear_fault(fault.name)


def simulator_command(string: str, chip: VirtualChip) -> list[str]:
    """Return the command that starts a simulator process for the device string `sim…`."""
    source = string.partition(":")[2] or "soi"
    command = module_command("photonloop.simulator", "--chip", source, "--parent", str(os.getpid()))
    for option, value in (("--ports", chip.ports), ("--stages", chip.stages), ("--seed", chip.seed)):
        if value is not None:
            command += [option, str(value)]
    return command


def lab_command(string: str) -> list[str]:
    """Return the command that starts the process which holds the instruments of the device string `lab:…`."""
    return module_command("photonloop.drivers", string.removeprefix("lab:"), "--parent", str(os.getpid()))


def start_process(string: str, chip: VirtualChip, options: Sequence[str] = (), *, stop: Stop | None = None) -> DeviceProcess:
    """Start the process behind `sim…` or `lab:…`, with further `options`, and return it once it has announced its address.

    Raises
    ------
    ConfigError
        The preset, chip file or station file cannot be used; the process's own sentence.
    DeviceError
        "transport" where it ends or stays silent instead of announcing an address, or an instrument is not there or in use;
        "device" where an instrument says that something is wrong.
    SessionStopped
        `stop` was asked for meanwhile; the process is ended.
    """
    is_lab = string.startswith("lab:")
    command = lab_command(string) if is_lab else simulator_command(string, chip)
    patience_s = LAB_END_S if is_lab else DeviceProcess.patience_s
    try:
        device, _ = launch([*command, *options], "address", stop or Stop(), patience_s)
    except StartRefusedError as refused:
        if not refused.words or refused.code not in {1, 2, 3}:
            what = "bench" if is_lab else "simulator"
            said = refused.words or "it said nothing"
            raise DeviceError("transport", f"the {what} for {string!r} did not start: {said}") from None
        if is_lab and refused.code != 2:  # 1: an instrument is not there now; 3: one says that something is wrong
            raise DeviceError("transport" if refused.code == 1 else "device", refused.words) from None
        raise ConfigError(refused.words) from None
    return device


class StartRefusedError(Exception):
    """A process did not announce itself: what it said last, and its exit code where it ended by itself."""

    def __init__(self, words: str, code: int | None) -> None:
        super().__init__(words)
        self.words = words
        self.code = code


def launch(
    command: Sequence[str], key: str, stop: Stop, patience_s: float = DeviceProcess.patience_s
) -> tuple[DeviceProcess, dict[str, Any]]:
    """Start a process that announces itself by one JSON line; return it, reached at what the line has under `key`, and the line.

    Raises
    ------
    StartRefusedError
        It ends, stays silent or says something else.
    SessionStopped
        `stop` was asked for meanwhile; the process is ended.
    """
    said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
    # A session of its own, so that Ctrl-C reaches only the controller, which then ends the process in order.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
    )
    device = DeviceProcess(process, said, patience_s=patience_s)
    try:
        announced = json.loads(_read_line(process, START_TIMEOUT_S, stop))
        return replace(device, address=str(announced[key])), announced
    except (json.JSONDecodeError, KeyError, TypeError):
        by_itself = device.ends_within(2.0)
        device.end()
        raise StartRefusedError(device.last_words(), process.returncode if by_itself else None) from None
    except BaseException:
        device.end()
        raise


def _read_line(process: subprocess.Popen[str], timeout_s: float, stop: Stop) -> str:
    """Return the first line that a process says in time, "" where it says none; SessionStopped at a wish to stop."""
    assert process.stdout is not None
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        stop.check("while the device was starting")
        ready, _, _ = select.select([process.stdout], [], [], _LOOK_S)
        if ready:
            return process.stdout.readline()
    return ""
