"""Heat and light of a chip, from its parameters alone: `physics.heat_and_light` for its stages and signal levels."""

from __future__ import annotations

from dataclasses import dataclass

from photonloop.protocols.config import ConfigError
from photonloop.simulator.engine.levels import bank_levels, levels, port_power_w
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.heat_and_light import HeatEstimate, LightEstimate, heat_estimate, light_estimate
from photonloop.simulator.physics.mesh import TOPOLOGIES


@dataclass(frozen=True)
class Feasibility:
    """Heat and light of a chip, and the warnings of both.

    `light` is None if a stage gets so little light that the chip is refused; the reason is in `warnings`.
    """

    heat: HeatEstimate
    light: LightEstimate | None
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, float | None]:
        """Return the numbers by name, for JSON."""
        light = self.light
        return {
            "power_w": self.heat.power_w,
            "current_a": self.heat.current_a,
            "density_w_per_cm2": self.heat.density_w_per_cm2,
            "rise_k": self.heat.rise_k,
            "loss_db": None if light is None else light.loss_db,
            "mean_a": None if light is None else light.mean_a,
            "noise_a": None if light is None else light.noise_a,
        }


def feasibility(parameters: ChipParameters) -> Feasibility:
    """Return heat and light of a chip for uniformly random phases and all inputs fully lit.

    Examples
    --------
    >>> from photonloop.simulator.parameters import load_chip
    >>> round(feasibility(load_chip("soi")).heat.power_w)
    202
    """
    heat = _heat(parameters)
    try:
        light = _light(parameters)
    except ConfigError as error:
        return Feasibility(heat, None, (*heat.warnings, f"{str(error)[:1].upper()}{str(error)[1:]}."))
    return Feasibility(heat, light, heat.warnings + light.warnings)


def _heat(parameters: ChipParameters) -> HeatEstimate:
    own, ports = parameters.crosstalk, parameters.ports
    if parameters.mesh.topology == "weight_bank":
        outputs = parameters.mesh.outputs or ports
        return heat_estimate(parameters, outputs * ports, outputs * own.mode_pitch_m * ports * own.column_pitch_m / 2)
    mesh = TOPOLOGIES[parameters.mesh.topology](ports)
    columns = int(mesh.column.max()) + 1
    area_m2 = parameters.stages * columns * own.column_pitch_m * ports * own.mode_pitch_m
    return heat_estimate(parameters, parameters.stages * mesh.channels, area_m2)


def _light(parameters: ChipParameters) -> LightEstimate:
    lit_a = parameters.photodiode.responsivity_a_per_w * port_power_w(parameters)
    is_bank = parameters.mesh.topology == "weight_bank"
    last = bank_levels(parameters) if is_bank else levels(parameters, TOPOLOGIES[parameters.mesh.topology](parameters.ports))[-1]
    return light_estimate(parameters, last.mean_intensity * last.ampere / lit_a, lit_a, last.thermal_a2, last.shot_a)
