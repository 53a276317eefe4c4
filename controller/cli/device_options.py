"""Options of the command line that apply to one kind of device only."""

from __future__ import annotations

import argparse

from photonloop.controller.device.address import DeviceAddress, check_option_applies
from photonloop.controller.device.processes import VirtualChip

_CHIP_OPTIONS = ("ports", "stages", "seed", "realtime", "physics")


def check_chip_options(args: argparse.Namespace, address: DeviceAddress) -> None:
    """Refuse options of virtual chips for any other device.

    Raises
    ------
    ConfigError
        The sentence names the option and the device.
    """
    given = vars(args)
    for name in _CHIP_OPTIONS:
        value = given.get(name)
        if value is not None and value is not False:  # --seed 0 is given, too
            check_option_applies(f"--{name}", "sim", address)


def chip_size(args: argparse.Namespace) -> VirtualChip:
    """Return the values of --ports, --stages and --seed."""
    return VirtualChip(ports=args.ports, stages=args.stages, seed=args.seed)
