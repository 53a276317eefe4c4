"""Options of the command line that apply to one kind of device only."""

from __future__ import annotations

import argparse

from photonloop.controller.device.address import DeviceAddress, check_option_applies
from photonloop.controller.device.processes import VirtualChip

_CHIP_OPTIONS = ("ports", "stages", "seed", "chip_seed", "realtime", "physics")


def check_chip_options(args: argparse.Namespace, address: DeviceAddress) -> None:
    """Refuse options of virtual chips for any other device.

    Raises
    ------
    ConfigError
        The sentence names the option and the device.
    """
    given = vars(args)
    for name in _CHIP_OPTIONS:
        if name == "seed" and "chip_seed" in given:
            continue  # --seed is that of the command itself
        value = given.get(name)
        if value is not None and value is not False:  # --seed 0 is given, too
            check_option_applies(f"--{name.replace('_', '-')}", "sim", address)


def chip_size(args: argparse.Namespace) -> VirtualChip:
    """Return the values of --ports, --stages, and --chip-seed or --seed."""
    return VirtualChip(ports=args.ports, stages=args.stages, seed=vars(args).get("chip_seed", args.seed))
