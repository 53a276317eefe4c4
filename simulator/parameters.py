"""Parameters of a virtual chip: every value of a preset or a chip file, with its bounds and unit.

If the parameter of an effect is 0, the effect is absent: it takes no time and draws no random number. The defaults
below are a chip without imperfections. A chip file may start from a preset (`preset = "soi"`) and contain only the
values that differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from photonloop.protocols.config import ConfigError, read_toml, suggestion, validate
from photonloop.simulator.physics.chip_faults import FaultParameters

PRESET_FOLDER = Path(__file__).parent / "presets"

_Fraction = Annotated[float, Field(ge=0, lt=1)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Bits = Annotated[int, Field(ge=0, le=24)]

MAX_REACH = 16
"""Largest range of thermal crosstalk, in distances of neighbouring heaters."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class MeshParameters(_Part):
    """The topology of every stage: a mesh of interferometers, or a bank of microring filters."""

    topology: Literal["clements", "reck", "svd", "weight_bank"] = "clements"
    """Topology: an interferometer mesh, or weight_bank, rows of rings for many wavelengths.

    A weight_bank is a single stage without couplers, taps and nonlinearity."""
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


class RingParameters(_Part):
    """The rings of a weight_bank. `heater` describes their heaters; P_π tunes a ring by half a free spectral range."""

    finesse: Annotated[float, Field(ge=2, le=1e5)] = 30.0
    """Free spectral range divided by the full width at half maximum of the resonance."""
    cold_rad: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Designed detuning at 0 V: the round-trip phase missing to resonance with the ring's wavelength [rad]."""
    drop_loss_db: Annotated[float, Field(ge=0, le=20)] = 0.0
    """Loss from the input to the drop port in resonance [dB]."""
    row_loss_db: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Loss to and through a row, equal for both detectors, in addition to the equal split between rows [dB]."""


class DacParameters(_Part):
    """The voltage sources."""

    max_v: Annotated[float, Field(gt=0, le=1000)] = 10.8
    """Highest voltage of a channel [V]; the lowest is 0."""
    range_v: Annotated[float, Field(gt=0, le=1000)] = 12.0
    """Full scale of the DAC [V]; at least max_v."""
    bits: _Bits = 0
    """Resolution over [0, range_v] [bit]; 0: continuous."""
    inl_lsb: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Integral nonlinearity [LSB]: largest deviation of each channel's own smooth transfer curve."""
    reads_back: bool = False
    """Whether the sources measure their output voltages and currents."""
    readback_noise_a: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of a measured output current [A]."""

    @model_validator(mode="after")
    def _is_a_converter(self) -> Self:
        if self.range_v < self.max_v:
            raise ValueError(f"range_v {self.range_v:g} V is less than max_v {self.max_v:g} V")
        if self.inl_lsb > 0 and self.bits == 0:
            raise ValueError(f"inl_lsb is {self.inl_lsb:g}, but a DAC with bits 0 has no LSB: set bits, or set inl_lsb to 0")
        return self


class HeaterParameters(_Part):
    """The thermo-optic phase shifters: phase = offset + π · p · κ(1 + ηp), p = power / P_π, κ = 1/(1 + η)."""

    resistance_ohm: Annotated[float, Field(gt=0, le=1e6)] = 770.0
    """Resistance R₀ of a cold heater [Ω]."""
    pi_power_w: Annotated[float, Field(gt=0, le=10)] = 0.023
    """Nominal power for a phase of π [W]."""
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
    """Thermal crosstalk between heaters of the same stage: fraction · (at_m / distance)^exponent of a heater's power.

    Positions: along the direction of light, φ of column c is at c · column_pitch_m, θ is half a pitch after it, and γ
    is after the last column. Across it, heaters are on their modes, mode_pitch_m apart.
    """

    fraction: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Share of a heater's power that another phase shifter receives at the distance at_m."""
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
    def _is_sparse(self) -> Self:
        nearest_m = min(self.column_pitch_m / 2, self.mode_pitch_m)
        if self.fraction > 0 and self.reach_m > MAX_REACH * nearest_m:
            raise ValueError(f"reach_m {self.reach_m:g} m is more than {MAX_REACH} times the smallest pitch, {nearest_m:g} m")
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


class CouplerParameters(_Part):
    """The directional couplers of the interferometers, nominally 50:50."""

    angle_sigma_rad: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Standard deviation of a coupler's angle from π/4 [rad]."""


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


class LaserParameters(_Part):
    """The laser, split equally between the input ports; amplitude 1 is the full power of a port."""

    total_power_w: Annotated[float, Field(gt=0, le=10)] = 0.01
    """Optical power on the chip, sum over all input ports [W]."""
    phases_settable: bool = False
    """True if the input modulators also set phases, so that inputs may be complex."""
    rin_db_per_hz: Annotated[float, Field(ge=-250, le=0)] = 0.0
    """Relative intensity noise [dB/Hz], within the bandwidth of the photodiodes, common to all detectors; 0: none."""
    drift_sigma: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Standard deviation of the logarithm of the power, which drifts as an Ornstein-Uhlenbeck process."""
    drift_tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time of the power drift [s]."""
    switch: bool = True
    """Whether the light can be switched: it is off at the start and in the safe state. If False, it is always on."""
    warm_up_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """Time from switching the light on to the first valid reading [s]."""


class ModulatorParameters(_Part):
    """The input modulators."""

    kind: Literal["array", "switch"] = "array"
    """array: one modulator per input. switch: an optical 1×N switch; at most one input of a sample may be lit."""
    extinction_db: Annotated[float, Field(ge=0, le=200)] = 0.0
    """Extinction ratio: power at amplitude 1 over power at amplitude 0 [dB]; 0: infinite."""
    amplitude_sigma: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Relative standard deviation of the amplitudes between ports; values are clipped at 4 standard deviations."""
    phase_span_rad: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Range of the phases between modulators and mesh, which are uniform in [0, phase_span_rad) [rad]."""
    crosstalk: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the power that couples into each neighbouring waveguide before the mesh."""


class TapParameters(_Part):
    """The taps between two stages. The last stage has no taps: all its light is detected."""

    fraction: _Fraction = 0.0
    """Share of the power that is detected; 0: ideal taps that detect the full power and remove nothing."""


class PhotodiodeParameters(_Part):
    """Photodiodes and their amplifiers; variance of the noise σ² = 4kT·B/R + 2q(I + I_dark)·B."""

    responsivity_a_per_w: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Mean responsivity [A/W]."""
    responsivity_sigma: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Relative standard deviation of the responsivity; values are clipped at 4 standard deviations."""
    saturation_a: Annotated[float, Field(ge=0, le=1e3)] = 0.0
    """Saturation current of the photodiode, at which its current is half of the linear value [A]; 0: linear."""
    dark_a: Annotated[float, Field(ge=0, le=1e-3)] = 0.0
    """Dark current [A]."""
    bandwidth_hz: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    """Noise bandwidth B [Hz]; 0: no noise."""
    temperature_k: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Temperature of the amplifier's resistor [K]; 0: no thermal noise."""
    load_ohm: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    """Resistance R of the amplifier, its gain [Ω]; 0: chosen per stage so that full scale gives `adc.range_v`."""


class AdcParameters(_Part):
    """The ADCs behind the detectors."""

    bits: _Bits = 0
    """Resolution over [0, full scale] [bit]; 0: continuous."""
    range_v: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Amplifier output at full scale [V]."""
    headroom: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Full scale of a stage divided by its expected mean current with all inputs fully lit; 0: never saturates."""


class ClockParameters(_Part):
    """Durations of operations on the chip's clock."""

    settle_s: Annotated[float, Field(ge=0, le=10)] = 1e-5
    """Time from a new drive to the first reading [s]."""
    sample_s: Annotated[float, Field(ge=0, le=10)] = 1e-5
    """Time to switch the inputs and read one sample [s]."""


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
    """Number of stages in series."""
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

    @model_validator(mode="after")
    def _is_one_bank(self) -> Self:
        if self.mesh.topology == "weight_bank" and self.stages != 1:
            raise ValueError(f"stages is {self.stages}, but a weight_bank detects all its light: set stages to 1")
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
