"""`photonloop serve`: a device on the network, behind the same server whatever it is."""

from __future__ import annotations

import argparse
import signal

from photonloop.controller.cli.console import stop_on_signals
from photonloop.controller.cli.printing import print_json, show
from photonloop.controller.device.processes import VirtualChip, check_device_string, open_device, start_process
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, then leave the device safe."""
    check_device_string(args.device)
    if args.device.startswith(("sim", "lab:")):
        return _serve_process(args)
    return _relay(args)


def _serve_process(args: argparse.Namespace) -> int:
    """The process of a simulator or a bench is a server already: it only has to be told where."""
    options = ["--bind", args.bind]
    if args.keys is not None:
        options += ["--keys", str(args.keys)]
    if args.realtime:
        if not args.device.startswith("sim"):
            raise ConfigError(f"--realtime is for virtual chips, and {args.device} takes the time that it takes")
        options.append("--realtime")
    chip = VirtualChip(ports=args.ports, stages=args.stages, seed=args.seed)
    with stop_on_signals() as stop:
        process = start_process(args.device, chip, options, stop=stop)
        try:
            _announce(args, process.address)
            while not stop.asked and not process.ends_within(0.25):
                pass
        finally:
            process.end()
    if not stop.asked:
        raise DeviceError("transport", f"the device's process ended by itself: {process.last_words() or 'it said nothing'}")
    return 0


def _relay(args: argparse.Namespace) -> int:
    """Serve a device that another server holds, to other people or under other keys."""
    opened = open_device(args.device, write=True, label="photonloop serve", keys=args.device_keys)

    def lost() -> str | None:
        return getattr(opened.device, "lost", None)

    try:
        # A relay whose device is gone would answer for a chip that nobody holds.
        server = DeviceServer(opened.device, args.bind, options=ServerOptions(keys=args.keys, on_tick=lambda: lost() is None))
        address = server.bind()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.stop())
        _announce(args, address)
        server.run()
    finally:
        opened.close()
    if (reason := lost()) is not None:
        raise DeviceError("transport", f"the device behind this server is gone: {reason}")
    return 0


def _announce(args: argparse.Namespace, address: str) -> None:
    if args.json:
        print_json({"address": address, "device": args.device})
    else:
        show(f"serving {args.device} at {address} until Ctrl-C")
