"""`photonloop keys`: keys for a server that is reached from other machines."""

from __future__ import annotations

import argparse

from photonloop.controller.cli.printing import print_json, show
from photonloop.protocols.wire.keys import add_client, create_server_keys


def run(args: argparse.Namespace) -> int:
    """Make the server's keys where there are none, and one pair a client."""
    create_server_keys(args.folder)
    carried = {name: str(add_client(args.folder, name)) for name in args.client}
    if args.json:
        print_json({"keys": str(args.folder), "clients": carried})
        return 0
    show(f"server keys in {args.folder}: photonloop serve DEVICE --bind tcp://HOST:PORT --keys {args.folder}")
    for name, folder in carried.items():
        show(f"carry {folder} to {name}: photonloop … --device tcp://HOST:PORT --keys {folder}")
    return 0
