"""What a virtual chip is made of: every number that a preset or a chip file may state, with its bounds and unit.

Zero means absent: an effect whose parameter is zero costs nothing and draws no random number, and the defaults below are a
chip without any flaw. A chip file may start from a preset (`preset = "soi"`) and state only what differs.
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
"""How many times the distance of neighbouring heaters thermal crosstalk may reach."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class MeshParameters(_Part):
    """How every stage is wired: a mesh of interferometers, or a bank of ring filters."""

    topology: Literal["clements", "reck", "svd", "weight_bank"] = "clements"
    """Meshes, and weight_bank: rows of rings on many wavelengths, a single stage without couplers, taps and nonlinearity."""
    outputs: Annotated[int, Field(ge=0, le=1024)] = 0
    """Rows of a weight_bank; 0: as many as ports. A mesh has as many outputs as ports."""

    @model_validator(mode="after")
    def _has_outputs_to_choose(self) -> Self:
        if self.outputs > 0 and self.topology != "weight_bank":
            raise ValueError(f"outputs {self.outputs} is for topology 'weight_bank': a {self.topology} mesh has one a port")
        return self


class RingParameters(_Part):
    """The ring filters of a weight_bank; their heaters are those of `heater`, P_π for half a free spectral range."""

    finesse: Annotated[float, Field(ge=2, le=1e5)] = 30.0
    """Free spectral range over the width of the resonance at half its height."""
    cold_rad: Annotated[float, Field(ge=0, le=100)] = 0.0
    """How far below its wavelength's resonance a ring is designed to be at zero volts, as phase of a round trip [rad]."""
    drop_loss_db: Annotated[float, Field(ge=0, le=20)] = 0.0
    """Loss from the input to the drop port in resonance [dB]."""
    row_loss_db: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Loss on the way to and through a row, to both detectors alike [dB], besides the equal split between rows."""


class DacParameters(_Part):
    """The voltage sources."""

    max_v: Annotated[float, Field(gt=0, le=1000)] = 10.8
    """Highest drive [V]; the lowest is 0."""
    range_v: Annotated[float, Field(gt=0, le=1000)] = 12.0
    """Full scale of the converter [V]; at least max_v."""
    bits: _Bits = 0
    """Resolution over [0, range_v]; 0: continuous."""
    inl_lsb: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Integral nonlinearity: each channel bends by its own smooth curve of at most this many steps."""

    @model_validator(mode="after")
    def _is_a_converter(self) -> Self:
        if self.range_v < self.max_v:
            raise ValueError(f"range_v {self.range_v:g} V does not reach max_v {self.max_v:g} V")
        if self.inl_lsb > 0 and self.bits == 0:
            raise ValueError(f"inl_lsb {self.inl_lsb:g} counts in steps of the converter, which has none while bits is 0")
        return self


class HeaterParameters(_Part):
    """The thermo-optic phase shifters: phase = offset + π · p · κ(1 + ηp), p = power / P_π, κ = 1/(1 + η)."""

    resistance_ohm: Annotated[float, Field(gt=0, le=1e6)] = 770.0
    """Resistance R₀ of a cold heater [Ω]."""
    pi_power_w: Annotated[float, Field(gt=0, le=10)] = 0.023
    """Nominal power for a phase of π [W]."""
    pi_power_sigma: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Relative standard deviation of P_π between heaters; draws end at 4 deviations."""
    offset_span_rad: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Phases at zero volts are uniform in [0, offset_span_rad)."""
    self_heating: Annotated[float, Field(ge=0, le=1)] = 0.0
    """ρ: a heater's own heat raises its resistance, R = R₀ (1 + ρp)."""
    curvature: Annotated[float, Field(ge=-0.1, le=0.1)] = 0.0
    """η: how the phase bends with power."""
    rise_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Time constant of warming up [s]; 0: at once."""
    fall_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Time constant of cooling down [s]; 0: at once."""


class CrosstalkParameters(_Part):
    """Heat that reaches other heaters of the same stage: fraction · (at_m / distance)^exponent of a heater's power, to reach_m.

    Along the light φ of column c lies at c · column_pitch_m, θ half a pitch behind it, γ behind the last column; across the light
    heaters lie on their modes, mode_pitch_m apart.
    """

    fraction: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Share of a heater's power that another one feels at the distance at_m."""
    at_m: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Distance to which the fraction belongs [m]."""
    exponent: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Of the decay with distance."""
    reach_m: Annotated[float, Field(ge=0, le=1)] = 1.5e-4
    """Distance beyond which nothing is felt [m]."""
    column_pitch_m: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Length of a column of interferometers [m]."""
    mode_pitch_m: Annotated[float, Field(gt=0, le=1)] = 5e-5
    """Distance of neighbouring modes [m]."""

    @model_validator(mode="after")
    def _is_sparse(self) -> Self:
        nearest_m = min(self.column_pitch_m / 2, self.mode_pitch_m)
        if self.fraction > 0 and self.reach_m > MAX_REACH * nearest_m:
            raise ValueError(f"reach_m {self.reach_m:g} m is more than {MAX_REACH} times the least pitch, {nearest_m:g} m")
        return self


class DriftParameters(_Part):
    """Phases that wander: each channel's own Ornstein-Uhlenbeck process, stationary from the start."""

    sigma_rad: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation [rad]."""
    tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time [s]."""


class TemperatureParameters(_Part):
    """The temperature of the whole chip, an Ornstein-Uhlenbeck process around its set point, stationary from the start.

    A phase is a difference between two paths, which warm up alike: a channel sees the phase of one heater's length times the
    relative difference of its two paths, drawn once.
    """

    sigma_k: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Standard deviation [K]."""
    tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time [s]."""
    set_k: Annotated[float, Field(gt=0, le=1000)] = 298.15
    """Set point [K]."""
    phase_rad_per_k: Annotated[float, Field(ge=0, le=100)] = 0.045
    """Phase that one heater's length of waveguide gains per kelvin [rad/K]."""
    imbalance_sigma: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Standard deviation of the channels' relative path differences."""


class CouplerParameters(_Part):
    """The directional couplers of the interferometers, nominally 50:50."""

    angle_sigma_rad: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Standard deviation of a coupler's angle around π/4 [rad]."""


class LossParameters(_Part):
    """Insertion loss."""

    mzi_db: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Mean loss of an interferometer on both arms alike, without that of its couplers and shifters [dB]."""
    mzi_sigma_db: Annotated[float, Field(ge=0, le=5)] = 0.0
    """Standard deviation of the loss between interferometers [dB]; a loss below 0 is drawn as 0."""
    coupler_db: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Loss of a coupler [dB]; an interferometer has two."""
    shifter_db: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Loss of a phase shifter [dB], in its own arm only."""


class NonlinearityParameters(_Part):
    """What the light passes between two stages.

    Electro-optic (Williamson 2020): f(E) = √(1-α) · exp(-i(g|E|²/2 + φ_b/2)) · cos(g|E|²/2 + φ_b/2) · E.
    """

    kind: Literal["none", "electro-optic"] = "none"
    """Behind every mesh but the last."""
    detected_fraction: _Fraction = 0.1
    """α: share of the power that the nonlinearity's own photodiode takes."""
    gain_rad: Annotated[float, Field(ge=0, le=100)] = 0.15707963267948966
    """g: phase [rad] at the intensity that `gain_reference` names."""
    bias_rad: Annotated[float, Field(ge=-100, le=100)] = 3.141592653589793
    """φ_b [rad]; π blocks weak light."""
    gain_reference: Literal["input", "local"] = "input"
    """input: |E|² counts in units of one fully lit input port, as in the paper. local: the electrical gain of each stage is
    trimmed so that g applies at the mean intensity arriving there while all inputs are fully lit, which makes up for loss."""


class LaserParameters(_Part):
    """The light source, split evenly over the input ports; amplitude 1 is a port's full share."""

    total_power_w: Annotated[float, Field(gt=0, le=10)] = 0.01
    """Power on the chip, all input ports together [W]."""
    phases_settable: bool = False
    """True where the input modulators set phases too, so that inputs may be complex."""
    rin_db_per_hz: Annotated[float, Field(ge=-250, le=0)] = 0.0
    """Relative intensity noise [dB/Hz] in the bandwidth of the photodiodes, common to all detectors; 0: none."""
    drift_sigma: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Relative standard deviation of the slow drift of the power, which is the exponential of an Ornstein-Uhlenbeck process."""
    drift_tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time of that drift [s]."""


class ModulatorParameters(_Part):
    """What sets the inputs."""

    extinction_db: Annotated[float, Field(ge=0, le=200)] = 0.0
    """Extinction ratio [dB]: the light that is left at amplitude 0; 0: none is left."""
    amplitude_sigma: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Relative standard deviation of the amplitudes between ports; draws end at 4 deviations."""
    phase_span_rad: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Phases between modulators and mesh are uniform in [0, phase_span_rad)."""
    crosstalk: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the power that passes into each neighbouring waveguide on the way to the mesh."""


class TapParameters(_Part):
    """What the detectors behind a stage take from the light on its way to the next one; behind the last stage, everything."""

    fraction: _Fraction = 0.0
    """Share of the power; 0: ideal taps that read the whole field and take nothing."""


class PhotodiodeParameters(_Part):
    """Detectors and their amplifiers; noise variance σ² = 4kT·B/R + 2q(I + I_dark)·B."""

    responsivity_a_per_w: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Mean responsivity [A/W]."""
    responsivity_sigma: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Relative standard deviation between detectors; draws end at 4 deviations."""
    saturation_a: Annotated[float, Field(ge=0, le=1e3)] = 0.0
    """Saturation current of the diode itself [A], where half of its light no longer counts; 0: never saturates."""
    dark_a: Annotated[float, Field(ge=0, le=1e-3)] = 0.0
    """Dark current [A]."""
    bandwidth_hz: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    """Noise bandwidth B [Hz]; 0: no noise at all."""
    temperature_k: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Temperature of the amplifier's resistor [K]; 0: no thermal noise."""
    load_ohm: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    """Amplifier gain R [V/A]; 0: each stage's own, so that its full scale reaches `adc.range_v`."""


class AdcParameters(_Part):
    """The converters behind the detectors."""

    bits: _Bits = 0
    """Resolution over [0, full scale]; 0: continuous."""
    range_v: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Amplified voltage at full scale [V]."""
    headroom: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Full scale of a stage over the mean current expected there with all inputs fully lit; 0: never saturates."""


class ClockParameters(_Part):
    """What operations take on the chip's clock."""

    settle_s: Annotated[float, Field(ge=0, le=10)] = 1e-5
    """From a new drive to readings that may be trusted [s]."""
    sample_s: Annotated[float, Field(ge=0, le=10)] = 1e-5
    """To switch the inputs and read one sample [s]."""


class LimitParameters(_Part):
    """What the device refuses to exceed; 0 means no limit."""

    current_a: Annotated[float, Field(ge=0, le=10)] = 0.024
    """Of one channel [A]."""
    power_w: Annotated[float, Field(ge=0, le=100)] = 0.06
    """Of one heater [W]."""
    mean_power_w: Annotated[float, Field(ge=0, le=100)] = 0.035
    """Of all heaters together, divided by their number [W]."""
    slew_v_per_s: _NotNegative = 0.0
    """Fastest change of a drive [V/s]."""
    max_batch: Annotated[int, Field(ge=1, le=2**20)] = 2**14
    max_settings: Annotated[int, Field(ge=1, le=2**16)] = 2**10
    max_readings: Annotated[int, Field(ge=1, le=2**28)] = 2**24
    max_loaded_bytes: Annotated[int, Field(ge=1, le=2**34)] = 2**28
    max_remembered_bytes: Annotated[int, Field(ge=0, le=2**34)] = 2**27
    """Memory for fields that entered later stages [bytes], so that loaded inputs don't pass unchanged stages twice."""


class ChipParameters(_Part):
    """A whole chip."""

    name: str = "chip"
    ports: Annotated[int, Field(ge=2, le=1024)] = 64
    stages: Annotated[int, Field(ge=1, le=8)] = 2
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Everything random follows from it."""
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
    """What is broken, or will break."""

    @model_validator(mode="after")
    def _is_one_bank(self) -> Self:
        if self.mesh.topology == "weight_bank" and self.stages != 1:
            raise ValueError(f"stages is {self.stages}, but a weight_bank detects all its light: it is a chip of 1 stage")
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

    `ports`, `stages` and `seed` count more than the file, the file more than its preset, the preset more than the defaults.

    Raises
    ------
    ConfigError
        One sentence: an unknown preset, a file that cannot be read, an unknown key with a suggestion, a value and its bound.
    """
    text = str(source)
    from_file = is_file(source)
    tables = read_toml(Path(text), "chip file") if from_file else _preset(text, "chip")
    where = f"chip file {text}" if from_file else f"chip {text}"
    if from_file:
        base = tables.pop("preset", None)
        if base is not None:
            tables = _merged(_preset(base, f"{where}: preset"), {"name": Path(text).stem, **tables})
        else:
            tables.setdefault("name", Path(text).stem)
    given = {"ports": ports, "stages": stages, "seed": seed}
    return validate(ChipParameters, {**tables, **{k: v for k, v in given.items() if v is not None}}, where)


def _preset(name: object, what: str) -> dict[str, Any]:
    names = preset_names()
    if name not in names:
        known = ", ".join(names)
        near = suggestion(str(name), list(names)) if isinstance(name, str) else ""
        ending = near if near.startswith("; did") else ""
        raise ConfigError(f"{what} {name!r} is not a preset: there are {known}{ending}")
    return {"name": name, **read_toml(PRESET_FOLDER / f"{name}.toml", "preset")}


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `under` with the keys of `over` laid over it, table by table."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
