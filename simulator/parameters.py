"""Parameters of a virtual chip: every value of a preset or a chip file, with its bounds and unit.

If the parameter of an effect is 0, the effect is absent: it takes no time and draws no random number. The defaults
below are a chip without imperfections. A chip file may start from a preset (`preset = "soi"`) and contain only the
values that differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from photonloop.protocols.config import ConfigError, read_toml, suggestion, validate
from photonloop.simulator.electronics_parameters import AdcParameters, DacParameters, PhotodiodeParameters
from photonloop.simulator.electronics_parameters import Part as _Part
from photonloop.simulator.input_parameters import LaserParameters, ModulatorParameters
from photonloop.simulator.physics.chip_faults import FaultParameters
from photonloop.simulator.physics.ring_parameters import RingParameters, check_crowding

PRESET_FOLDER = Path(__file__).parent / "presets"

_Fraction = Annotated[float, Field(ge=0, lt=1)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class MeshParameters(_Part):
    """The topology of every stage: a mesh of interferometers, or a bank of microring filters."""

    topology: Literal["clements", "reck", "svd", "weight_bank"] = "clements"
    """Topology: an interferometer mesh, or weight_bank, rows of rings for many wavelengths.

    Each stage of a weight_bank is a bank of its own, without couplers, taps and nonlinearity. The modulated light is
    split equally between the banks."""
    outputs: Annotated[int, Field(ge=0, le=1024)] = 0
    """Number of rows of a weight_bank; 0: as many as ports. A mesh has as many outputs as ports."""

    @model_validator(mode="after")
    def _has_outputs_to_choose(self) -> Self:
        if self.outputs > 0 and self.topology != "weight_bank":
            raise ValueError(
                f"outputs is {self.outputs}, but only topology 'weight_bank' has it: "
                f"a {self.topology} mesh has one output per port"
            )
        return self


class HeaterParameters(_Part):
    """The thermo-optic phase shifters: phase = offset + π · p · κ(1 + ηp), p = power / P_π, κ = 1/(1 + η)."""

    resistance_ohm: Annotated[float, Field(gt=0, le=1e6)] = 770.0
    """Resistance R₀ of a cold heater [Ω]."""
    resistance_sigma: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Relative standard deviation of the cold resistances; values are clipped at 4 standard deviations."""
    ground_ohm: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Resistance of the ground conductor that the heaters of one half column share [Ω].

    Each half column (the φ or the θ of one column, or the γ) has one ground pad. The voltage across a heater is its
    source's voltage less this resistance times the current of all of them."""
    pi_power_w: Annotated[float, Field(gt=0, le=10)] = 0.023
    """Nominal power that changes the phase difference of the two arms of an interferometer by π [W]."""
    pi_power_sigma: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Relative standard deviation of P_π between heaters; values are clipped at 4 standard deviations."""
    offset_span_rad: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Range of the phases at 0 V, which are uniform in [0, offset_span_rad) [rad]."""
    self_heating: Annotated[float, Field(ge=0, le=1)] = 0.0
    """ρ: relative increase of a heater's resistance at P_π, R = R₀ (1 + ρp)."""
    curvature: Annotated[float, Field(ge=-0.1, le=0.1)] = 0.0
    """η: curvature of the phase as a function of power."""
    rise_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Time constant of heating [s]; 0: no delay."""
    fall_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Time constant of cooling [s]; 0: no delay."""


class CrosstalkParameters(_Part):
    """Thermal crosstalk within a stage: fraction · (at_m / distance)^exponent of a heater's power warms a segment.

    Every arm of every interferometer and every waveguide beside them has a segment per half column, with a phase of
    its own. Positions: along the direction of light, φ of column c is at c · column_pitch_m, θ is half a pitch after
    it, and γ is after the last column. Across it, segments are on their modes, mode_pitch_m apart.
    """

    fraction: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Share of a heater's power that another segment receives at the distance at_m."""
    at_m: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Distance for which the fraction is given [m]."""
    exponent: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Exponent of the decay with distance."""
    reach_m: Annotated[float, Field(ge=0, le=1)] = 1.5e-4
    """Distance beyond which there is no crosstalk [m]."""
    column_pitch_m: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Length of a column of interferometers [m]."""
    mode_pitch_m: Annotated[float, Field(gt=0, le=1)] = 5e-5
    """Distance of neighbouring modes [m]."""

    @model_validator(mode="after")
    def _heats_its_own_arm_most(self) -> Self:
        nearest_m = min(self.column_pitch_m / 2, self.mode_pitch_m)
        share = self.fraction * (self.at_m / nearest_m) ** self.exponent
        if self.reach_m >= nearest_m and share >= 1.0:
            raise ValueError(
                f"fraction {self.fraction:g} at {self.at_m:g} m is a share of {share:.3g} at the smallest pitch, "
                f"{nearest_m:g} m, but a neighbour gets less than a heater's own arm: reduce fraction or exponent"
            )
        return self


class DriftParameters(_Part):
    """Phase drift: an independent Ornstein-Uhlenbeck process per channel, stationary from the start."""

    sigma_rad: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation of the phase drift [rad]."""
    tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time [s]."""


class TemperatureParameters(_Part):
    """The temperature of the whole chip: an Ornstein-Uhlenbeck process around its setpoint, stationary from the start.

    A phase is a difference between two paths at the same temperature. A channel's phase changes by the phase of one
    heater length times its relative path difference, which is drawn once.
    """

    sigma_k: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Standard deviation of the temperature [K]."""
    tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time [s]."""
    set_k: Annotated[float, Field(gt=0, le=1000)] = 298.15
    """Setpoint of the temperature [K]."""
    phase_rad_per_k: Annotated[float, Field(ge=0, le=100)] = 0.045
    """Phase change per kelvin of a waveguide as long as one heater [rad/K]."""
    imbalance_sigma: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Standard deviation of the channels' path differences, in heater lengths."""
    heating_k_per_w: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Temperature of the chip above its controlled stage per total heater power [K/W].

    Quasi-static: the temperature follows the power of the held drive at once. The settings of an evaluation do not
    change it, because they last milliseconds, and a package takes seconds to warm up."""


class CouplerParameters(_Part):
    """The directional couplers of the interferometers, nominally 50:50."""

    angle_sigma_rad: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Standard deviation of a coupler's angle from π/4 [rad]."""
    slope_rad_per_nm: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Change of every coupler's angle per nanometre of laser wavelength [rad/nm]."""


class LossParameters(_Part):
    """Insertion loss."""

    mzi_db: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Mean loss of an interferometer, equal in both arms, without the loss of its couplers and shifters [dB]."""
    mzi_sigma_db: Annotated[float, Field(ge=0, le=5)] = 0.0
    """Standard deviation of the loss between interferometers [dB]; negative losses are set to 0."""
    coupler_db: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Loss of a coupler [dB]; an interferometer has two."""
    shifter_db: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Loss of a phase shifter [dB], in its own arm only."""


class NonlinearityParameters(_Part):
    """The nonlinearity between two stages.

    Electro-optic (Williamson 2020): f(E) = √(1-α) · exp(-i(g|E|²/2 + φ_b/2)) · cos(g|E|²/2 + φ_b/2) · E.
    """

    kind: Literal["none", "electro-optic"] = "none"
    """Kind of the nonlinearity behind every stage but the last."""
    detected_fraction: _Fraction = 0.1
    """α: share of the power that the photodiode of the nonlinearity detects."""
    gain_rad: Annotated[float, Field(ge=0, le=100)] = 0.15707963267948966
    """g: phase at the intensity given by `gain_reference` [rad]."""
    bias_rad: Annotated[float, Field(ge=-100, le=100)] = 3.141592653589793
    """φ_b: bias phase [rad]; at π, weak light is blocked."""
    gain_reference: Literal["input", "local"] = "input"
    """Intensity for which g is given. input: the power of one fully lit input port, as in the paper. local: the mean
    intensity at the stage with all inputs fully lit, so that the electrical gain compensates for loss."""


class TapParameters(_Part):
    """The taps between two stages. The last stage has no taps: all its light is detected."""

    fraction: _Fraction = 0.0
    """Share of the power that is detected; 0: ideal taps that detect the full power and remove nothing."""


class ClockParameters(_Part):
    """Durations of operations on the chip's clock."""

    settle_s: Annotated[float, Field(ge=0, le=10)] = 1e-5
    """Time from a new drive to the first reading [s]."""
    sample_s: Annotated[float, Field(ge=0, le=10)] = 1e-5
    """Time to switch the inputs and read one sample [s], without the time of its detectors."""
    channel_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Time to write the voltage of one channel [s], before the settle time; channels are written one after another."""
    detector_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Time to read one detector of a sample [s]; detectors are read one after another."""


class LimitParameters(_Part):
    """Limits of the device; requests beyond them are refused. 0: no limit."""

    current_a: Annotated[float, Field(ge=0, le=10)] = 0.024
    """Largest current of a channel [A]."""
    power_w: Annotated[float, Field(ge=0, le=100)] = 0.06
    """Largest power of a heater [W]."""
    mean_power_w: Annotated[float, Field(ge=0, le=100)] = 0.035
    """Largest total power of all heaters, divided by their number [W]."""
    slew_v_per_s: _NotNegative = 0.0
    """Largest rate of change of a voltage [V/s]."""
    max_batch: Annotated[int, Field(ge=1, le=2**20)] = 2**14
    """Largest number of samples of an evaluation."""
    max_settings: Annotated[int, Field(ge=1, le=2**16)] = 2**10
    """Largest number of settings of an evaluation."""
    max_readings: Annotated[int, Field(ge=1, le=2**28)] = 2**24
    """Largest number of readings of an evaluation."""
    max_loaded_bytes: Annotated[int, Field(ge=1, le=2**34)] = 2**28
    """Memory for loaded inputs [bytes]."""
    max_remembered_bytes: Annotated[int, Field(ge=0, le=2**34)] = 2**27
    """Memory for cached fields of loaded inputs at later stages [bytes], so that unchanged stages are computed once."""


class ChipParameters(_Part):
    """All parameters of a chip."""

    name: str = "chip"
    """Name of the chip."""
    ports: Annotated[int, Field(ge=2, le=1024)] = 64
    """Number of input ports."""
    stages: Annotated[int, Field(ge=1, le=8)] = 2
    """Number of stages: meshes in series, or weight banks in parallel."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of all fabrication variations, drift and noise."""
    mesh: MeshParameters = MeshParameters()
    ring: RingParameters = RingParameters()
    dac: DacParameters = DacParameters()
    heater: HeaterParameters = HeaterParameters()
    crosstalk: CrosstalkParameters = CrosstalkParameters()
    drift: DriftParameters = DriftParameters()
    temperature: TemperatureParameters = TemperatureParameters()
    coupler: CouplerParameters = CouplerParameters()
    loss: LossParameters = LossParameters()
    nonlinearity: NonlinearityParameters = NonlinearityParameters()
    laser: LaserParameters = LaserParameters()
    modulator: ModulatorParameters = ModulatorParameters()
    tap: TapParameters = TapParameters()
    photodiode: PhotodiodeParameters = PhotodiodeParameters()
    adc: AdcParameters = AdcParameters()
    clock: ClockParameters = ClockParameters()
    limits: LimitParameters = LimitParameters()
    faults: tuple[FaultParameters, ...] = ()
    """Faults, from the start or at a given time."""

    @property
    def sample_s(self) -> float:
        """Time from one sample to the next [s], with all detectors of a stage."""
        outputs = self.mesh.outputs if self.mesh.topology == "weight_bank" and self.mesh.outputs else self.ports
        return self.clock.sample_s + outputs * self.clock.detector_s

    @model_validator(mode="after")
    def _wavelengths_are_separable(self) -> Self:
        if self.mesh.topology == "weight_bank":
            check_crowding(self.ring, self.ports)
        return self

    @model_validator(mode="after")
    def _forgets(self) -> Self:
        if self.photodiode.has_memory and self.sample_s == 0:
            raise ValueError(
                "photodiode.has_memory is true, but clock.sample_s is 0, so a reading would never change: "
                "set sample_s, or set has_memory to false"
            )
        return self


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets."""
    return tuple(sorted(path.stem for path in PRESET_FOLDER.glob("*.toml")))


def is_file(source: str | Path) -> bool:
    """Return whether `source` names a chip file rather than a preset."""
    return isinstance(source, Path) or source.endswith(".toml") or "/" in source


def load_chip(
    source: str | Path, *, ports: int | None = None, stages: int | None = None, seed: int | None = None
) -> ChipParameters:
    """Return the chip that `source` describes: the name of a preset, or the path of a .toml chip file.

    `ports`, `stages` and `seed` override the file, the file overrides its preset, and the preset overrides the
    defaults.

    Raises
    ------
    ConfigError
        If the preset is unknown, if the file cannot be read, if a key is unknown (the message suggests a similar one),
        or if a value is out of bounds.
    """
    text = str(source)
    from_file = is_file(source)
    tables = read_toml(Path(text), "chip file") if from_file else _preset(text, "chip")
    where = f"chip file {text}" if from_file else f"chip {text}"
    if from_file:
        base = tables.pop("preset", None)
        tables = {"name": Path(text).stem, **tables}
        if base is not None:
            tables = _merged(_preset(base, f"{where}: preset"), tables)
    given = {"ports": ports, "stages": stages, "seed": seed}
    return validate(ChipParameters, {**tables, **{k: v for k, v in given.items() if v is not None}}, where)


def _preset(name: object, what: str) -> dict[str, Any]:
    names = preset_names()
    if name not in names:
        near = suggestion(str(name), list(names)) if isinstance(name, str) else ""
        ending = near if near.startswith("; did") else ""
        raise ConfigError(f"{what} {name!r} is not a preset: there are {', '.join(names)}{ending}")
    return {"name": name, **read_toml(PRESET_FOLDER / f"{name}.toml", "preset")}


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `under`, updated with the keys of `over`, recursively for tables."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
