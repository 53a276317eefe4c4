"""Parameters of a virtual chip's electronics: voltage sources, photodiodes with amplifiers, and ADCs."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Bits = Annotated[int, Field(ge=0, le=24)]
"""Resolution of a converter [bit]; 0: continuous."""


class Part(BaseModel):
    """The parameters of one part of a chip."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DacParameters(Part):
    """The voltage sources.

    Output = (1 + gain drift) · converter output + slow noise + noise. Noise is constant within a setting. At the held
    drive it is drawn when the voltages of a stage change, and stays until they change again.
    """

    max_v: Annotated[float, Field(gt=0, le=1000)] = 10.8
    """Highest voltage of a channel [V]; the lowest is 0."""
    range_v: Annotated[float, Field(gt=0, le=1000)] = 12.0
    """Full scale of the DAC [V]; at least max_v."""
    bits: Bits = 0
    """Resolution over [0, range_v] [bit]; 0: continuous."""
    inl_lsb: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Integral nonlinearity [LSB]: largest deviation of each channel's own smooth transfer curve."""
    noise_v: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of the white noise of each channel [V], drawn anew for every setting."""
    slow_noise_v: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of the slow noise of each channel [V], an Ornstein-Uhlenbeck process."""
    slow_noise_tau_s: Annotated[float, Field(gt=0, le=1e9)] = 10.0
    """Correlation time of the slow noise [s]."""
    gain_drift_sigma: Annotated[float, Field(ge=0, le=0.1)] = 0.0
    """Standard deviation of each channel's relative gain, which drifts as an Ornstein-Uhlenbeck process."""
    gain_drift_tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time of the gain drift [s]."""

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


class PhotodiodeParameters(Part):
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
    """Noise bandwidth B [Hz]; 0: no noise and no memory."""
    has_memory: bool = False
    """Whether the amplifier is a one-pole filter of noise bandwidth B. If so, a reading keeps the share e^(-4BT) of the
    previous sample's output, T the time from sample to sample. The first sample of a setting has settled."""
    temperature_k: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Temperature of the amplifier's resistor [K]; 0: no thermal noise."""
    load_ohm: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    """Resistance R of the amplifier, its gain [Ω]; 0: chosen per stage so that full scale gives `adc.range_v`."""


class AdcParameters(Part):
    """The ADCs behind the detectors: reading = (1 + gain drift) · (current + noise) + offset, in steps of one LSB.

    Values in LSB have no effect if bits is 0.
    """

    bits: Bits = 0
    """Resolution over [0, full scale] [bit]; 0: continuous."""
    range_v: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Amplifier output at full scale [V]."""
    headroom: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Full scale of a stage divided by its expected mean current with all inputs fully lit; 0: never saturates."""
    noise_lsb: Annotated[float, Field(ge=0, le=1e4)] = 0.0
    """Standard deviation of the white noise before quantisation [LSB]."""
    offset_lsb: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Zero offset of all converters [LSB], so that noise around zero light is not cut off at code 0."""
    offset_sigma_lsb: Annotated[float, Field(ge=0, le=1e5)] = 0.0
    """Standard deviation of the zero offset between detectors [LSB]; values are clipped at 4 standard deviations."""
    offset_drift_lsb: Annotated[float, Field(ge=0, le=1e5)] = 0.0
    """Standard deviation of each detector's offset drift [LSB], an Ornstein-Uhlenbeck process."""
    offset_drift_tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time of the offset drift [s]."""
    gain_drift_sigma: Annotated[float, Field(ge=0, le=0.1)] = 0.0
    """Standard deviation of each detector's relative gain, which drifts as an Ornstein-Uhlenbeck process."""
    gain_drift_tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time of the gain drift [s]."""
