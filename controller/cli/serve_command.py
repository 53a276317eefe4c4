"""`photonloop serve`: serve any device over the network."""

from __future__ import annotations

import argparse

from photonloop.controller.cli.console import stop_on_signals
from photonloop.controller.cli.device_options import check_chip_options, chip_size
from photonloop.controller.cli.printing import print_json, print_lines
from photonloop.controller.device.address import DeviceAddress, parse_device_string
from photonloop.controller.device.open_device import check_device, open_device
from photonloop.controller.device.processes import start_process
from photonloop.protocols.client.device_client import DeviceClient
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions
from photonloop.protocols.stop_request import handle_stop_signals


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, then leave the device safe."""
    address = parse_device_string(args.device)
    if args.keys is not None and address.kind != "server":
        raise ConfigError(
            f"--keys applies to connections to a device server, but the device is {address}: give the keys of the new server "
            "with --server-keys"
        )
    check_chip_options(args, address)
    check_device(address, args.keys)
    return _relay(args, address) if address.kind == "server" else _serve_process(args, address)


def _serve_process(args: argparse.Namespace, address: DeviceAddress) -> int:
    """Serve a virtual chip or a station, whose process is a device server itself."""
    options = ["--bind", args.bind]
    if args.server_keys is not None:
        options += ["--server-keys", str(args.server_keys)]
    if args.realtime:
        options.append("--realtime")
    with stop_on_signals() as stop:
        process = start_process(address, chip_size(args), options, stop=stop)
        try:
            _announce(args, process.address)
            while not stop.asked and not process.ends_within(0.25):
                pass
        finally:
            process.end()
    if not stop.asked:
        reason = process.last_error_line() or "it printed no error message"
        raise DeviceError("transport", f"the process of the device ended by itself: {reason}")
    return 0


def _relay(args: argparse.Namespace, address: DeviceAddress) -> int:
    """Serve the device of another server, to other clients or with other keys."""
    opened = open_device(address, write=True, label="photonloop serve", keys=args.keys)
    client = opened.device
    assert isinstance(client, DeviceClient)
    try:
        # A relay that has lost the lease of its device ends, because it can no longer write to the device.
        options = ServerOptions(keys=args.server_keys, on_tick=lambda: client.lost is None)
        server = DeviceServer(client, args.bind, options=options)
        bound = server.bind()
        handle_stop_signals(lambda _number: server.stop())  # to the end of the process, while the device is made safe
        _announce(args, bound)
        server.run()
    finally:
        opened.close()
    if client.lost is not None:
        raise DeviceError("transport", f"the lease of the device behind this server is lost: {client.lost}")
    return 0


def _announce(args: argparse.Namespace, address: str) -> None:
    if args.json:
        print_json({"address": address, "device": args.device})
    else:
        print_lines(f"serving {args.device} at {address} until Ctrl-C")
