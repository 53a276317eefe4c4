"""`photonloop describe`: print the stages, limits and health of a device."""

from __future__ import annotations

import argparse
import json
import subprocess

from rich.console import Console
from rich.table import Table
from rich.text import Text

from photonloop.controller.cli.device_options import check_chip_options, chip_size
from photonloop.controller.cli.printing import print_json, print_lines
from photonloop.controller.device.address import DeviceAddress, parse_device_string
from photonloop.controller.device.open_device import check_device, open_device
from photonloop.controller.device.processes import simulator_command
from photonloop.controller.learning.variables import lsb_rad
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import STEADY_S, DeviceDescription, DeviceStatus, PerChannel


def run(args: argparse.Namespace) -> int:
    """Print the description and status of a device, without its lease; with `--clear-fault`, clear one fault first."""
    address = parse_device_string(args.device)
    check_chip_options(args, address)
    check_device(address, args.keys)
    if args.physics:
        return _physics(args, address)
    write = args.clear_fault is not None
    opened = open_device(
        address, write=write, chip=chip_size(args), label="photonloop describe", keys=args.keys, clear=args.clear_fault
    )
    try:
        description, status = opened.device.describe(), opened.device.status()
    finally:
        opened.close()
    if args.json:
        answer = description.model_dump(mode="json")
        print_json({"device": args.device, "description": answer, "status": status.model_dump(mode="json")})
    else:
        _print(args.device, description, status)
    return 0


def _physics(args: argparse.Namespace, address: DeviceAddress) -> int:
    """Print the parameters of a virtual chip, which its simulator prints in a process of its own."""
    command = [*simulator_command(address.chip, chip_size(args)), "--physics", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError((done.stderr.strip().splitlines() or ["the simulator ended without an error message"])[-1])
    answer = json.loads(done.stdout)
    if args.json:
        print_json({"device": args.device, **answer})
        return 0
    table = Table("effect", "parameter", "value", "unit", "bounds", "source")
    effect = ""
    for row in answer["physics"]:
        value = row["value"]
        shown = "absent" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
        first = row["effect"] if row["effect"] != effect else ""
        effect = row["effect"]
        table.add_row(*(Text(cell) for cell in (first, row["parameter"], shown, row["unit"], row["bounds"], row["source"])))
    console = Console(highlight=False)
    with console.capture() as drawn:
        console.print(f"{args.device}: {answer['chip']}", markup=False)
        console.print(table)
    print_lines(drawn.get().rstrip())
    return 0


def _print(device: str, description: DeviceDescription, status: DeviceStatus) -> None:
    serials = [f"{name} {serial}" for name, serial in description.serials.items() if serial != description.name]
    stages = Table("stage", "topology", "ports", "channels", "taps", "full scale", "nonlinearity")
    for stage, full_scale in zip(description.stages, description.readout.full_scale, strict=True):
        last = stage.first_channel + stage.channels - 1
        stages.add_row(
            stage.name,
            stage.topology,
            str(stage.ports),
            f"{stage.first_channel}…{last}",
            str(stage.tap_ports),
            _engineering(full_scale, description.readout.unit),
            stage.nonlinearity,
        )
    figures = Table("", "", show_header=False)
    warnings = [("warning", text) for text in description.warnings]
    for name, value in (*_abilities(description), *limit_rows(description), *_health(status), *warnings):
        figures.add_row(name, value)
    console = Console(highlight=False)
    with console.capture() as drawn:
        console.print(f"{device}: {' · '.join([f'{description.kind} {description.name!r}', *serials])}", markup=False)
        console.print(stages)
        console.print(figures)
    print_lines(drawn.get().rstrip())


_BATCH = 128
"""Samples of the evaluation whose rate is shown."""

_SLOW_PER_S = 1.0
"""Evaluations per second below which the time of 1000 evaluations is shown."""


def _abilities(description: DeviceDescription) -> list[tuple[str, str]]:
    drive, readout = description.drive, description.readout
    step = f"{_engineering(drive.lsb_v, 'V')} or {lsb_rad(drive):.2g} rad at π per step"
    resolution = f"{drive.bits} bit: {step}" if drive.bits else "continuous"
    clock = "virtual: advances by the time that each operation takes in a lab" if description.clock == "virtual" else "real time"
    return [
        ("inputs", f"{description.input_ports} ports, {_input_text(description)}"),
        ("input phases", _phase_text(description)),
        ("light", "switched by set_light, and off in the safe state" if description.light_switch else "cannot be switched"),
        ("drive", f"{drive.min_v:g} to {drive.max_v:g} V, {resolution}"),
        ("drive noise", _known(drive.noise_v, "V", "between repeated settings")),
        ("read-back", "measures voltages or currents of the sources" if description.reads_back else "none"),
        ("heater", f"nominally {drive.resistance_ohm:g} Ω and {drive.pi_power_w * 1e3:.4g} mW for π"),
        ("heater time constant", _known(drive.time_constant_s, "s")),
        ("new drive", f"{_engineering(drive.settle_s, 's')} to settle"),
        ("sample", f"{_engineering(readout.sample_s, 's')} to read, {f'{readout.bits} bit' if readout.bits else 'continuous'}"),
        ("noise without light", _noise_text(description)),
        ("detector bandwidth", _known(readout.bandwidth_hz, "Hz")),
        ("heater positions", _geometry_text(description)),
        ("speed", _speed_text(description)),
        ("clock", clock),
    ]


def _input_text(description: DeviceDescription) -> str:
    settable = "amplitude and phase" if description.phases_settable else "amplitude only"
    one = description.inputs_at_once == "one"
    return f"{settable}, {'one at a time: enough to calibrate, not to train' if one else 'all at once'}"


def _phase_text(description: DeviceDescription) -> str:
    steady_s = description.phases_steady_s
    if steady_s is None:
        return "not known whether they drift"
    return "do not drift" if steady_s >= STEADY_S else f"drift by 0.1 rad in {_engineering(steady_s, 's')}"


def _noise_text(description: DeviceDescription) -> str:
    noise, unit = description.readout.noise, description.readout.unit
    return "not known" if noise is None else ", ".join(_engineering(sigma, unit) for sigma in noise)


def _geometry_text(description: DeviceDescription) -> str:
    missing = [stage.name for stage in description.stages if stage.geometry is None]
    if not missing:
        return "known"
    stages = "" if len(missing) == len(description.stages) else f" for {', '.join(missing)}"
    return f"not known{stages}: a model can only assume crosstalk between neighbours"


def _speed_text(description: DeviceDescription) -> str:
    """Return the rate of evaluations of a batch, from the times to settle and to read."""
    samples = min(_BATCH, description.limits.max_batch)
    evaluation_s = description.drive.settle_s + samples * description.readout.sample_s
    if evaluation_s == 0:
        return "not limited by the device"
    text = f"{1 / evaluation_s:.3g} evaluations of {samples} samples per second"
    return text if evaluation_s < 1 / _SLOW_PER_S else f"{text}, {evaluation_s * 1000 / 3600:.3g} hours per 1000"


def _known(value: float | None, unit: str, what: str = "") -> str:
    return "not known" if value is None else f"{_engineering(value, unit)} {what}".rstrip()


def limit_rows(description: DeviceDescription) -> list[tuple[str, str]]:
    """Return the rows of a table of the limits of a device: name and text."""
    limits = description.limits
    return [
        ("limit per channel", f"{_one(limits.voltage_v)} V, {_one(limits.current_a, 1e3)} mA, {_one(limits.power_w, 1e3)} mW"),
        ("total power limit", f"{limits.total_power_w:.4g} W" if limits.total_power_w else "none"),
        ("slew", f"{limits.slew_v_per_s:g} V/s" if limits.slew_v_per_s else "no limit"),
        (
            "one evaluation",
            f"at most {limits.max_settings} settings, {limits.max_batch} samples, {limits.max_readings} readings",
        ),
    ]


def _health(status: DeviceStatus) -> list[tuple[str, str]]:
    light = {None: "", True: ", light on", False: ", light off"}[status.light]
    state = f"{'safe' if status.safe else 'driven'}, {status.heater_power_w:.4g} W{light}"
    rows = [
        ("state", state + (", evaluating" if status.busy else "")),
        ("writer", status.leased_to or "none"),
        ("device clock", f"{status.clock_s:.6g} s, {status.evaluations} settings read"),
    ]
    rows += [(f"fault {fault.name}", fault.detail) for fault in status.faults]
    rows += [(name, value if isinstance(value, str) else f"{value:.6g}") for name, value in status.health.items()]
    return rows


def _engineering(value: float, unit: str) -> str:
    if value == 0:
        return f"0 {unit}"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"


def _one(limit: PerChannel, scale: float = 1.0) -> str:
    values = limit if isinstance(limit, tuple) else (limit,)
    low, high = min(values) * scale, max(values) * scale
    if high == 0:
        return "no limit in"
    return f"{high:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
