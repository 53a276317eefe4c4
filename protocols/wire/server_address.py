"""Addresses of device servers."""

from __future__ import annotations

import ipaddress
import re

from photonloop.protocols.errors import DeviceError

_TCP = re.compile(r"tcp://(\[[0-9A-Fa-f:.%]+\]|[^\[\]:/\s;]+):(\d{1,5}|\*)")


def check_server_address(address: str, *, to_bind: bool) -> str:
    """Return the checked `address`, for ZeroMQ; `tcp://localhost` becomes `tcp://127.0.0.1`.

    Raises
    ------
    DeviceError
        "bad_request" for anything but `tcp://HOST:PORT` and `ipc://PATH`; the port `*` is allowed only with `to_bind`.
    """
    if address.startswith("ipc://") and len(address) > len("ipc://"):
        return address
    match = _TCP.fullmatch(address)
    port = match.group(2) if match else ""
    if match is None or (port == "*" and not to_bind) or (port != "*" and not (0 if to_bind else 1) <= int(port) <= 65535):
        raise DeviceError("bad_request", f"address is {address!r}, expected tcp://HOST:PORT or ipc://PATH")
    return f"tcp://127.0.0.1:{port}" if match.group(1).lower() == "localhost" else address


def on_this_machine(address: str) -> bool:
    """Return whether only this machine can reach `address`.

    A name that may be a network interface counts as reachable.
    """
    match = _TCP.fullmatch(address)
    if match is None:
        return address.startswith("ipc://")
    host = match.group(1).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
