"""Open the device that a device string names."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from photonloop.controller.device.address import DeviceAddress, check_option_applies, parse_device_string
from photonloop.controller.device.processes import DeviceProcess, VirtualChip, start_process
from photonloop.controller.stopping import Stop
from photonloop.drivers.station.loading import load_reference
from photonloop.protocols.client.device_client import DeviceClient, connect
from photonloop.protocols.device import PhotonicDevice
from photonloop.protocols.errors import DeviceError

_LOG = logging.getLogger(__name__)

LEASE_TTL_S = 5.0
"""Time to live of a lease: time for which a server keeps the device driven after the last message of the controller."""


@dataclass(frozen=True)
class OpenDevice:
    """A connected device, and the process that holds it if this command started one."""

    device: PhotonicDevice
    process: DeviceProcess | None = None

    def close(self) -> None:
        """Make the device safe, close the connection and end the process. Closing twice is harmless."""
        try:
            self.device.close()
        except DeviceError as error:
            _LOG.warning("the device could not be closed: %s", error.detail)
        finally:
            if self.process is not None:
                self.process.end()


def check_device(device: str | DeviceAddress, keys: Path | None = None) -> DeviceAddress:
    """Parse a device string and check it, as far as that is possible without opening the device.

    Parameters
    ----------
    device
        A device string, or one that is parsed already.
    keys
        Folder of keys with which to connect to a device server.

    Raises
    ------
    ConfigError
        The string is of no known kind, its station file or its limits are wrong, or `keys` are given for a device that
        is not a server.
    """
    address = parse_device_string(device) if isinstance(device, str) else device
    if keys is not None:
        check_option_applies("--keys", "server", address)
    if address.kind == "lab":
        load_reference(address.station_reference)
    return address


def open_device(
    device: str | DeviceAddress,
    *,
    write: bool,
    chip: VirtualChip | None = None,
    label: str = "photonloop",
    lease_key: str | None = None,
    keys: Path | None = None,
    clear: str | None = None,
    stop: Stop | None = None,
) -> OpenDevice:
    """Connect to a device, after starting its process if it is a virtual chip or a station.

    Parameters
    ----------
    device
        A device string.
    write
        Take the lease, which is needed to apply and to evaluate. Without it the device can only be described.
    chip
        Ports, stages and seed of a virtual chip; ignored for other devices.
    label
        Name of this controller, which other users see while it holds the lease.
    lease_key
        Identity of the writer over restarts. A writer that returns with the same key takes over its own lease.
    keys
        Folder of CURVE keys with which to connect to a device server on another machine.
    clear
        Name of a latched fault to clear, because the user asked for it.
    stop
        Ends the wait for a process to start. The first start of a simulator takes minutes.

    Raises
    ------
    ConfigError
        As `check_device` and `start_process`.
    SessionStopped
        `stop` was requested before the device was open. No process is left running.
    DeviceError
        "transport" if no server answers (within 3 s at a network address), "lease" if another controller holds the
        lease, "interlock" if a fault is latched that this writer did not cause.
    """
    address = check_device(device, keys)
    process = None
    if address.kind != "server":
        # A session keeps one processor for itself, to prepare the next update while the simulator evaluates.
        options = ("--beside", "1") if write and address.kind == "sim" else ()
        process = start_process(address, chip, options, stop=stop)
    try:
        client = connect(process.address if process else address.server, label=label, lease_key=lease_key, keys=keys)
        if write:
            _take_lease(client, lease_key, clear)
    except BaseException:
        if process is not None:
            process.end()
        raise
    return OpenDevice(client, process)


def _take_lease(client: DeviceClient, lease_key: str | None, clear: str | None) -> None:
    """Acquire the lease, and clear the faults that an earlier process of this writer left; close the client on failure.

    Raises
    ------
    DeviceError
        "interlock" if another fault is latched, whose cause the user must find.
    """
    try:
        client.acquire(LEASE_TTL_S)
        if clear is not None:
            client.clear_fault(clear)
            return
        for fault in client.status().faults:
            if lease_key is None or fault.lease_key != lease_key:
                first = "resume the run that caused it, or find" if fault.lease_key else "find"
                raise DeviceError(
                    "interlock",
                    f"the device has latched the fault {fault.name!r} ({fault.detail}): {first} its cause and clear it with "
                    f"photonloop describe {client.address} --clear-fault {fault.name}",
                )
            client.clear_fault(fault.name)
    except BaseException:
        client.close()
        raise
