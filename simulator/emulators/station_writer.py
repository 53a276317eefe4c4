"""Write the `station.toml` of a virtual bench: the file that the user of a real bench writes by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from photonloop.simulator.emulators import generic_scpi, virtual_keysight
from photonloop.simulator.emulators.bench_choices import SWITCH
from photonloop.simulator.emulators.laboratory import AMPLIFIER_V, CENTRE_NM
from photonloop.simulator.emulators.virtual_bench import VirtualBench
from photonloop.simulator.emulators.virtual_qdac2 import MAX_A
from photonloop.simulator.emulators.virtual_qontrol import FULL_A
from photonloop.simulator.parameters import ChipParameters

SETTLE_S = 1e-3
"""Settle time of a drive [s]. Heaters settle in microseconds, but a lab's drivers and cables are slower."""

INPUT_SETTLE_S = 0.0
"""Settle time of the input modulators [s]."""

_SOURCE_A = {"qontrol": FULL_A, "qdac2": MAX_A, "scpi-source": 0.05}
_SOURCE_V = {"qontrol": 12.0, "qdac2": 10.0, "scpi-source": 15.0}


def station_toml(bench: VirtualBench, parameters: ChipParameters, addresses: Mapping[str, str], *, speed: float) -> str:
    """Return the text of a station file.

    Parameters
    ----------
    bench
        The virtual bench.
    parameters
        Its chip, with the limits that the bench's own chip does not enforce.
    addresses
        VISA address of each instrument.
    speed
        Factor on response times. At 0 heaters need no settle time.
    """
    wiring, laboratory = bench.wiring, bench.laboratory
    used = list(dict.fromkeys((wiring.heaters, wiring.modulators or SWITCH, wiring.detectors, wiring.laser)))
    out = [
        f"# A virtual bench of chip {parameters.name}, seed {parameters.seed}.",
        "# It ends with the process that wrote this file. Instruments that are there but not used:",
        *(f"#   {name:<18} {address}" for name, address in addresses.items() if name not in used),
        f"name = {_value(f'bench-{parameters.name}')}",
        f"settle_s = {_value(SETTLE_S if speed > 0 else 0.0)}",
        "",
        *_limits(bench, parameters),
        "",
        *_heater(bench),
    ]
    for name in used:
        out += ["", *_instrument(bench, name, addresses[name])]
    first_detector = 0
    for index, stage in enumerate(laboratory.stages):
        out += ["", *_stage(bench, index, first_detector)]
        first_detector += stage.tap_ports
    out += [
        "",
        *_inputs(bench, speed),
        "",
        "[laser]",
        f"instrument = {_value(wiring.laser)}",
        f"power_w = {_value(laboratory.laser_max_w)}",
        f"wavelength_nm = {_value(CENTRE_NM)}",
    ]
    return "\n".join(out) + "\n"


def _limits(bench: VirtualBench, parameters: ChipParameters) -> list[str]:
    limits, source = parameters.limits, bench.wiring.heaters
    bounds = {
        "max_v": min(parameters.dac.max_v, _SOURCE_V[source]),
        "max_a": min(limits.current_a or math.inf, _SOURCE_A[source]),
        "max_w": limits.power_w,
        "total_w": limits.mean_power_w * bench.laboratory.heater_v.size,
        "slew_v_per_s": limits.slew_v_per_s,
    }
    return ["[limits]", *(f"{key} = {_value(value)}" for key, value in bounds.items() if value > 0)]


def _heater(bench: VirtualBench) -> list[str]:
    drive = bench.laboratory.chip.describe().drive
    return [
        "[heater]",
        f"resistance_ohm = {_value(drive.resistance_ohm)}",
        f"pi_power_w = {_value(drive.pi_power_w)}",
        *_known(time_constant_s=drive.time_constant_s, noise_v=drive.noise_v),
    ]


def _inputs(bench: VirtualBench, speed: float) -> list[str]:
    wiring, laboratory = bench.wiring, bench.laboratory
    if wiring.modulators:
        lines = [
            f"instrument = {_value(wiring.modulators)}",
            f"channels = {_value(wiring.modulator_channels)}",
            f'curve = {{ kind = "mach-zehnder", v_pi = {_value(laboratory.v_pi)} }}',
            f"settle_s = {_value(INPUT_SETTLE_S)}",
        ]
    else:
        lines = [
            'kind = "switch"',
            f"instrument = {_value(SWITCH)}",
            f"channels = {_value(range(bench.channels[SWITCH]))}",
            f"settle_s = {_value(generic_scpi.SWITCH_S if speed > 0 else 0.0)}",
        ]
    return ["[inputs]", *lines, *_known(phases_steady_s=laboratory.chip.describe().phases_steady_s)]


def _known(**values: float | None) -> list[str]:
    """Return the keys whose values are known."""
    return [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]


def _instrument(bench: VirtualBench, name: str, address: str) -> list[str]:
    out = ["[[instruments]]", f"name = {_value(name)}", f"driver = {_value(name)}", f"address = {_value(address)}"]
    if settings := _settings(bench, name):
        out += ["[instruments.settings]", *(f"{key} = {_value(value)}" for key, value in settings.items())]
    return out


def _stage(bench: VirtualBench, index: int, first_detector: int) -> list[str]:
    """Return the table of stage number `index`, whose detectors are counted from `first_detector` on."""
    wiring, stage = bench.wiring, bench.laboratory.stages[index]
    full_scale_a = bench.laboratory.full_scale_a[index]
    readout = bench.laboratory.chip.describe().readout
    geometry = stage.geometry.model_dump(exclude_none=True) if stage.geometry is not None else {}
    heaters = wiring.heater_channels[stage.first_channel : stage.first_channel + stage.channels]
    detectors = wiring.detector_channels[first_detector : first_detector + stage.tap_ports]
    return [
        "[[stages]]",
        f"name = {_value(stage.name)}",
        f"topology = {_value(stage.topology)}",
        f"ports = {stage.ports}",
        f"nonlinearity = {_value(stage.nonlinearity)}",
        *([f"layout = {_value(stage.layout)}"] if stage.layout else []),
        *(["[stages.geometry]", *(f"{key} = {_value(value)}" for key, value in geometry.items())] if geometry else []),
        "[stages.heaters]",
        f"instrument = {_value(wiring.heaters)}",
        f"channels = {_value(heaters)}",
        f"groups = {_value(stage.groups)}",
        "[stages.detectors]",
        f"instrument = {_value(wiring.detectors)}",
        f"channels = {_value(detectors)}",
        f"ampere_per_unit = {_value(full_scale_a / AMPLIFIER_V)}",
        f"full_scale_a = {_value(full_scale_a)}",
        *_known(noise_a=readout.noise[index] if readout.noise is not None else None, bandwidth_hz=readout.bandwidth_hz),
    ]


def _settings(bench: VirtualBench, name: str) -> dict[str, Any]:
    """Return the settings of the instrument's driver."""
    detectors = bench.laboratory.detectors
    match name:
        case "scpi-source":
            return {
                "channels": bench.channels[name],
                "max_v": generic_scpi.SOURCE_V,
                "max_a": generic_scpi.SOURCE_A,
                "set": "VOLT {volts},(@{channel})",
                "query_volts": "VOLT? (@{channels})",
                "query_amps": "MEAS:CURR? (@{channels})",
                "limit_volts": "VOLT:PROT {volts},(@{channel})",
                "limit_amps": "CURR:LIM {amps},(@{channel})",
                "error": "SYST:ERR?",
            }
        case "scpi-readout":
            return {
                "channels": bench.channels[name],
                "unit": "V",
                "full_scale": generic_scpi.READOUT_V,
                "read": "MEAS:VOLT? (@{channels})",
                "error": "SYST:ERR?",
            }
        case "scpi-laser":
            low_nm, high_nm = generic_scpi.LASER_NM
            return {
                "max_power_w": generic_scpi.LASER_W,
                "min_nm": low_nm,
                "max_nm": high_nm,
                "on": "OUTP ON",
                "off": "OUTP OFF",
                "query_on": "OUTP?",
                "set_power": "POW {power}",
                "query_power": "POW?",
                "set_wavelength": "WAV {wavelength}",
                "query_wavelength": "WAV?",
                "error": "SYST:ERR?",
            }
        case "scpi-switch":
            return {
                "channels": bench.channels[name],
                "select": "ROUT:CHAN {channel}",
                "query": "ROUT:CHAN?",
                "dark": 0,
                "error": "SYST:ERR?",
            }
        case "keysight-daq970a":
            return {"inputs": [virtual_keysight.channel_name(index) for index in range(detectors)]}
        case _:
            return {"resolution": 1} if name == "labjack-t7" else {}  # 16 bit at 40 µs per input


def _value(value: Any) -> str:
    """Format a value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(float(value)) if isinstance(value, float) else str(int(value))
