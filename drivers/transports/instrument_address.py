"""Addresses of instruments: check their form, and find out whether two of them mean the same place.

TCPIP::192.168.1.5::5025::SOCKET  =  TCPIP0::192.168.1.5::5025::SOCKET
ASRL/dev/ttyUSB0::INSTR           =  /dev/ttyUSB0  =  a link to it in /dev/serial/by-id/
"""

from __future__ import annotations

import os
import re

from photonloop.protocols.config import ConfigError

_FIRST_BOARD = re.compile(r"^(tcpip|usb|gpib|pxi|vxi)0?::")


def same_place(address: str) -> str:
    """Return the normal form of `address`, the same for all spellings; for comparisons, not for opening."""
    text = address.strip()
    path = serial_path(text)
    if path:
        return f"asrl{os.path.realpath(path)}".casefold()
    text = _FIRST_BOARD.sub(r"\1::", text.casefold())
    kind, *parts = text.split("::")
    if kind == "tcpip" and parts[:1] == ["localhost"]:
        parts[0] = "127.0.0.1"
    if parts[-1:] == ["instr"]:
        parts.pop()
    if (kind == "tcpip" and parts[1:] == ["inst0"]) or (kind == "usb" and parts[3:] == ["0"]):
        parts.pop()
    if kind == "usb":
        parts[:2] = [_number(part) for part in parts[:2]]
    return "::".join([kind, *parts])


def serial_path(address: str) -> str:
    """Return the path of the serial port that `address` names; empty if it names something else."""
    if address.startswith("/"):
        return address
    kind, _, rest = address.partition("::")
    return kind[4:] if kind.upper().startswith("ASRL/") and rest.upper() in {"", "INSTR"} else ""


def check_address(address: str, *, library: str = "@py", socket: bool = False) -> None:
    """Raise `ConfigError` if `address` is malformed, without any input or output.

    Parameters
    ----------
    address
        A path, or a VISA resource name.
    library
        The VISA library. Libraries other than pyvisa-py may have aliases, so any address without "::" is accepted for
        them.
    socket
        Accept sockets only.
    """
    if (serial_path(address) and not socket) or (library != "@py" and "::" not in address):
        return
    # pyvisa takes a quarter of a second to import, so it is imported only if an address needs it.
    from pyvisa.rname import InvalidResourceName, ResourceName  # noqa: PLC0415

    try:
        name = ResourceName.from_string(address)
    except InvalidResourceName:
        raise ConfigError(_expected(address, socket=socket)) from None
    is_socket = name.resource_class == "SOCKET"
    if (socket and not is_socket) or (is_socket and not _is_port(getattr(name, "port", ""))):
        raise ConfigError(_expected(address, socket=socket))


def _expected(address: str, *, socket: bool) -> str:
    others = "" if socket else ", ASRL/dev/ttyUSB0::INSTR or another VISA resource name"
    return f"address is {address!r}, expected TCPIP::HOST::PORT::SOCKET{others}"


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) < 65536


def _number(text: str) -> str:
    try:
        return str(int(text, 0))
    except ValueError:
        return text
