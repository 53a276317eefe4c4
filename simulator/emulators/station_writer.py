"""The `station.toml` of a virtual bench: what a user of a real bench would have written by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from photonloop.simulator.emulators import generic_scpi, virtual_keysight
from photonloop.simulator.emulators.laboratory import AMPLIFIER_V, CENTRE_NM
from photonloop.simulator.emulators.virtual_bench import VirtualBench
from photonloop.simulator.emulators.virtual_qdac2 import MOST_A
from photonloop.simulator.emulators.virtual_qontrol import FULL_A
from photonloop.simulator.parameters import ChipParameters

SETTLE_S = 1e-3
"""Heaters settle in microseconds; the lab's drivers and cables are slower."""

INPUT_SETTLE_S = 0.0

_SOURCE_A = {"qontrol": FULL_A, "qdac2": MOST_A, "scpi-source": 0.05}
_SOURCE_V = {"qontrol": 12.0, "qdac2": 10.0, "scpi-source": 15.0}


def station_toml(bench: VirtualBench, parameters: ChipParameters, addresses: Mapping[str, str], *, speed: float) -> str:
    """Return the text of a station file for `bench`, whose instruments answer at `addresses`."""
    wiring, laboratory = bench.wiring, bench.laboratory
    description = laboratory.chip.describe()
    used = list(dict.fromkeys((wiring.heaters, wiring.modulators, wiring.detectors, wiring.laser)))
    spare = [name for name in addresses if name not in used]
    limits = parameters.limits  # the bench's own chip has lost these
    bounds = {
        "max_v": min(parameters.dac.max_v, _SOURCE_V[wiring.heaters]),
        "max_a": min(limits.current_a or math.inf, _SOURCE_A[wiring.heaters]),
        "max_w": limits.power_w,
        "total_w": limits.mean_power_w * laboratory.heater_v.size,
        "slew_v_per_s": limits.slew_v_per_s,
    }
    out = [
        f"# A virtual bench of chip {parameters.name}, seed {parameters.seed}.",
        "# It lives as long as the process that wrote this file. Also there, unused:",
        *(f"#   {name:<18} {addresses[name]}" for name in spare),
        f"name = {_value(f'bench-{parameters.name}')}",
        f"settle_s = {_value(SETTLE_S if speed > 0 else 0.0)}",
        "",
        "[limits]",
        *(f"{key} = {_value(value)}" for key, value in bounds.items() if value > 0),
        "",
        "[heater]",
        f"resistance_ohm = {_value(description.drive.resistance_ohm)}",
        f"pi_power_w = {_value(description.drive.pi_power_w)}",
    ]
    for name in used:
        out += ["", "[[instruments]]", f"name = {_value(name)}", f"driver = {_value(name)}"]
        out += [f"address = {_value(addresses[name])}"]
        if settings := _settings(bench, name):
            out += ["[instruments.settings]", *(f"{key} = {_value(value)}" for key, value in settings.items())]
    detector = 0
    for index, stage in enumerate(description.stages):
        first, last = stage.first_channel, stage.first_channel + stage.channels
        out += [
            "",
            "[[stages]]",
            f"name = {_value(stage.name)}",
            f"topology = {_value(stage.topology)}",
            f"ports = {stage.ports}",
            f"nonlinearity = {_value(stage.nonlinearity)}",
            *([f"layout = {_value(stage.layout)}"] if stage.layout else []),
            "[stages.heaters]",
            f"instrument = {_value(wiring.heaters)}",
            f"channels = {_value(wiring.heater_channels[first:last])}",
            f"groups = {_value(stage.groups)}",
            "[stages.detectors]",
            f"instrument = {_value(wiring.detectors)}",
            f"channels = {_value(wiring.detector_channels[detector : detector + stage.tap_ports])}",
            f"ampere_per_unit = {_value(laboratory.full_scale_a[index] / AMPLIFIER_V)}",
            f"full_scale_a = {_value(laboratory.full_scale_a[index])}",
        ]
        detector += stage.tap_ports
    out += [
        "",
        "[inputs]",
        f"instrument = {_value(wiring.modulators)}",
        f"channels = {_value(wiring.modulator_channels)}",
        f'curve = {{ kind = "mach-zehnder", v_pi = {_value(laboratory.v_pi)} }}',
        f"settle_s = {_value(INPUT_SETTLE_S)}",
        "",
        "[laser]",
        f"instrument = {_value(wiring.laser)}",
        f"power_w = {_value(laboratory.laser_max_w)}",
        f"wavelength_nm = {_value(CENTRE_NM)}",
    ]
    return "\n".join(out) + "\n"


def _settings(bench: VirtualBench, name: str) -> dict[str, Any]:
    """Return what a driver has to be told besides the address."""
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
        case "keysight-daq970a":
            return {"inputs": [virtual_keysight.channel_name(index) for index in range(detectors)]}
        case _:
            return {}


def _value(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(float(value)) if isinstance(value, float) else str(int(value))
