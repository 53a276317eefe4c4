"""The device description of a virtual chip: nominal values only."""

from __future__ import annotations

import hashlib
import math

from photonloop.protocols.device import (
    STEADY_S,
    DeviceDescription,
    DriveDescription,
    LimitsDescription,
    ReadoutDescription,
)
from photonloop.simulator.engine.stage import Stage
from photonloop.simulator.parameters import ChipParameters


def describe(parameters: ChipParameters, stages: tuple[Stage, ...], realtime: bool) -> DeviceDescription:
    """Return the description of a chip."""
    limits, channels = parameters.limits, sum(s.description.channels for s in stages)
    return DeviceDescription(
        name=parameters.name,
        kind="simulator",
        serials={"chip": parameters.name, "seed": str(parameters.seed), "parameters": _digest(parameters)},
        input_ports=parameters.ports,
        inputs_at_once="one" if parameters.modulator.kind == "switch" else "many",
        phases_settable=parameters.laser.phases_settable,
        phases_steady_s=phases_steady_s(parameters),
        light_switch=parameters.laser.switch,
        reads_back=parameters.dac.reads_back,
        stages=tuple(s.description for s in stages),
        drive=DriveDescription(
            min_v=0.0,
            max_v=parameters.dac.max_v,
            bits=parameters.dac.bits,
            range_v=parameters.dac.range_v,
            settle_s=parameters.clock.settle_s,
            resistance_ohm=parameters.heater.resistance_ohm,
            pi_power_w=parameters.heater.pi_power_w,
            noise_v=drive_noise_v(parameters),
            time_constant_s=max(parameters.heater.rise_s, parameters.heater.fall_s),
        ),
        readout=ReadoutDescription(
            full_scale=tuple(s.levels.full_scale_a for s in stages),
            bits=parameters.adc.bits,
            signed=parameters.mesh.topology == "weight_bank",
            sample_s=parameters.clock.sample_s,
            noise=tuple(dark_noise_a(parameters, stage) for stage in stages),
            bandwidth_hz=parameters.photodiode.bandwidth_hz or None,
        ),
        limits=LimitsDescription(
            voltage_v=parameters.dac.max_v,
            current_a=limits.current_a,
            power_w=limits.power_w,
            total_power_w=limits.mean_power_w * channels,
            slew_v_per_s=limits.slew_v_per_s,
            max_batch=limits.max_batch,
            max_settings=limits.max_settings,
            max_readings=limits.max_readings,
            max_loaded_bytes=limits.max_loaded_bytes,
        ),
        clock="real" if realtime else "virtual",
    )


def phases_steady_s(parameters: ChipParameters) -> float:
    """Return the time in which the phase of an input changes by 0.1 rad relative to the others [s]."""
    return STEADY_S


def drive_noise_v(parameters: ChipParameters) -> float:
    """Return the standard deviation of a voltage between repeated settings [V]."""
    return 0.0


def dark_noise_a(parameters: ChipParameters, stage: Stage) -> float:
    """Return the standard deviation of a reading of `stage` without light [A].

    Thermal noise of the amplifier, shot noise of the dark current, and the quantisation of the ADC, LSB²/12. A balanced
    pair has the shot noise of two photodiodes.
    """
    levels, diodes = stage.levels, 1 if stage.rings is None else 2
    shot_a2 = levels.shot_a * diodes * parameters.photodiode.dark_a
    return math.sqrt(levels.thermal_a2 + shot_a2 + levels.code_a**2 / 12.0)


def _digest(parameters: ChipParameters) -> str:
    """Return a short digest of all parameters that differ from their defaults. It changes if the chip file is edited.

    Faults are left out, because a chip with a fault is still the same chip.
    """
    return hashlib.sha256(parameters.model_dump_json(exclude_defaults=True, exclude={"faults"}).encode()).hexdigest()[:12]
