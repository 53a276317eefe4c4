"""The device description of a virtual chip: nominal values only."""

from __future__ import annotations

import hashlib

from photonloop.protocols.device import (
    DeviceDescription,
    DriveDescription,
    LimitsDescription,
    ReadoutDescription,
)
from photonloop.simulator.engine.feasibility import feasibility
from photonloop.simulator.engine.levels import dark_noise_a
from photonloop.simulator.engine.stage import Stage
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.dac import setting_noise_v
from photonloop.simulator.physics.modulator import phases_steady_s


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
            settle_s=parameters.clock.settle_s + parameters.clock.channel_s * max(s.description.channels for s in stages),
            resistance_ohm=parameters.heater.resistance_ohm,
            pi_power_w=parameters.heater.pi_power_w,
            noise_v=setting_noise_v(parameters.dac),
            time_constant_s=max(parameters.heater.rise_s, parameters.heater.fall_s),
        ),
        readout=ReadoutDescription(
            full_scale=tuple(s.levels.full_scale_a for s in stages),
            bits=parameters.adc.bits,
            signed=parameters.mesh.topology == "weight_bank",
            sample_s=parameters.sample_s,
            noise=tuple(dark_noise_a(parameters, stage.levels) for stage in stages),
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
        warnings=feasibility(parameters).warnings,
    )


def _digest(parameters: ChipParameters) -> str:
    """Return a short digest of all parameters that differ from their defaults. It changes if the chip file is edited.

    Faults are left out, because a chip with a fault is still the same chip.
    """
    return hashlib.sha256(parameters.model_dump_json(exclude_defaults=True, exclude={"faults"}).encode()).hexdigest()[:12]
