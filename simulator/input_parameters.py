"""Parameters of the light at the inputs of a virtual chip: laser and modulators."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from photonloop.simulator.electronics_parameters import Part


class LaserParameters(Part):
    """The laser, split equally between the input ports; amplitude 1 is the full power of a port.

    A weight bank has one laser per input, of equal nominal power.
    """

    total_power_w: Annotated[float, Field(gt=0, le=10)] = 0.01
    """Optical power on the chip, sum over all input ports [W]."""
    phases_settable: bool = False
    """True if the input modulators also set phases, so that inputs may be complex."""
    rin_db_per_hz: Annotated[float, Field(ge=-250, le=0)] = 0.0
    """Relative intensity noise [dB/Hz], within the bandwidth of the photodiodes; 0: none.

    It is common to all detectors of a mesh. A weight bank has one laser per input, each with noise of its own."""
    drift_sigma: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Standard deviation of the logarithm of each laser's power, which drifts as an Ornstein-Uhlenbeck process."""
    drift_tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time of the power drift [s]."""
    detuning_pm: Annotated[float, Field(ge=-1e5, le=1e5)] = 0.0
    """Mean wavelength minus the design wavelength of the chip [pm]. Meshes only."""
    jitter_pm: Annotated[float, Field(ge=0, le=1e5)] = 0.0
    """Standard deviation of each laser's wavelength, an Ornstein-Uhlenbeck process around its mean [pm]."""
    jitter_tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time of the wavelength [s]."""
    phase_rad_per_pm: Annotated[float, Field(ge=0, le=1)] = 6.9e-4
    """Phase change per picometre of a waveguide as long as one heater of 61.6 µm: 2π · n_g · L / λ² [rad/pm]."""
    switch: bool = True
    """Whether the light can be switched: it is off at the start and in the safe state. If False, it is always on."""
    warm_up_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """Time from switching the light on to the first valid reading [s]."""


class ModulatorParameters(Part):
    """The input modulators, and the fibres or waveguides between them and the first mesh.

    Drifts are independent Ornstein-Uhlenbeck processes per port, stationary from the start. They act where light enters
    the mesh, after the crosstalk between neighbouring waveguides. After a time t much shorter than τ, a phase has
    changed by σ·√(2t/τ) rms: σ = 30 rad is 1 rad in a minute with τ = 1.08e5 s, and 3 rad in a second with
    τ = 200 s, as in separate fibres. A phase common to all ports has no effect.
    """

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
    path_sigma_m: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation of the path lengths to the mesh [m]; phases follow wavelength and chip temperature by it."""
    phase_drift_rad: Annotated[float, Field(ge=0, le=1e3)] = 0.0
    """Standard deviation of the phase drift of each port [rad]."""
    phase_drift_tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time of the phase drift [s]."""
    coupling_drift_sigma: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Standard deviation of the logarithm of the power that each port couples into the mesh; 0.023 is 0.1 dB."""
    coupling_drift_tau_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """Correlation time of the coupling drift [s]."""
