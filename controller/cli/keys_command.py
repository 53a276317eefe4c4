"""`photonloop keys`: create the keys of a server on the network and of its clients."""

from __future__ import annotations

import argparse

from photonloop.controller.cli.printing import print_json, print_lines
from photonloop.protocols.wire.keys import add_client, create_server_keys


def run(args: argparse.Namespace) -> int:
    """Create the server's keys if the folder has none, and one pair of keys per client."""
    create_server_keys(args.folder)
    client_folders = {name: str(add_client(args.folder, name)) for name in args.client}
    if args.json:
        print_json({"keys": str(args.folder), "clients": client_folders})
        return 0
    print_lines(f"server keys in {args.folder}: photonloop serve DEVICE --bind tcp://HOST:PORT --server-keys {args.folder}")
    for name, folder in client_folders.items():
        print_lines(f"copy {folder} to {name}'s machine: photonloop … --device tcp://HOST:PORT --keys {folder}")
    return 0
