"""The optics and electronics that all virtual instruments share: one chip, its heaters, its light and its detectors.

    laser ──▶ fibre ──▶ one modulator per port ──▶ [ chip ] ──▶ photodiodes with amplifiers ──▶ volts
      └─ 1 % tap ──▶ power meter                      ▲
                        (or a 1×N switch)             │
                                    voltage sources ──┘ heaters

`Laboratory` owns all of the state. Instruments set voltages and light on it, and measure through it. A measurement is
made when it is asked for, with the voltages and the light of that moment and with noise of its own. Converters are part
of the instruments, so the chip here has none.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters

AMPLIFIER_V = 9.5
"""Output of a detector's amplifier at the full scale of its stage [V], within the 10 V range of common converters."""

MONITOR_SHARE = 0.01
"""Share of the laser's power that goes to the power meter: a common 20 dB tap."""

GRATING_FWHM_NM = 60.0
"""Width of the grating couplers' passband [nm]. An estimate: 1 dB bandwidths are 30 to 40 nm."""

CENTRE_NM = 1550.0
"""Wavelength that the chip is designed for [nm]."""

STAMPS = 4096
"""Stamps count modulo this number. A 16-bit converter can resolve them."""

_STAMP_TOP = 0.9
"""Share of full scale of the highest stamp."""

_LOG_BYTES = 1 << 26
"""Memory for the log [bytes]. The log holds as many entries as fit, each counted at its largest size."""


ReadVolts = Callable[[Sequence[int]], NDArray[np.float64]]
"""Measures the voltages [V] at the given inputs of a readout, all at the same time."""


@dataclass(frozen=True)
class LaserLight:
    """The output of a laser."""

    power_w: float = 0.0
    wavelength_nm: float = CENTRE_NM
    is_on: bool = False


@dataclass(frozen=True)
class Measurement:
    """One measurement of one stage's detectors.

    Parameters
    ----------
    sequence
        Number of the measurement, counted from 1 over all stages; stamped readings show it.
    stage
        Index of the stage.
    heater_v, modulator_v
        Voltages during the measurement [V], shapes (channels,) and (input ports,).
    lit
        Whether the laser was on.
    current_a
        Photocurrents or stamps [A], shape (tap ports,).
    """

    sequence: int
    stage: int
    heater_v: NDArray[np.float64]
    modulator_v: NDArray[np.float64]
    lit: bool
    current_a: NDArray[np.float64]


@dataclass(frozen=True)
class Load:
    """The load that a channel of a voltage source is connected to.

    Parameters
    ----------
    hold
        Applies a voltage [V].
    resistance_ohm
        Its resistance; infinite: it draws no current.
    is_open
        Returns whether its wire is open.
    """

    hold: Callable[[float], None] = lambda _: None
    resistance_ohm: float = math.inf
    is_open: Callable[[], bool] = lambda: False

    def current_a(self, volts: float) -> float:
        """Return the current [A] at `volts`."""
        return 0.0 if self.is_open() else volts / self.resistance_ohm


def bench_chip(parameters: ChipParameters) -> ChipParameters:
    """Return the same chip without converters and without limits: on a bench, both are part of the instruments."""
    free = parameters.limits.model_copy(
        update={"current_a": 0.0, "power_w": 0.0, "mean_power_w": 0.0, "slew_v_per_s": 0.0, "max_remembered_bytes": 0}
    )
    return parameters.model_copy(
        update={
            "dac": parameters.dac.model_copy(update={"bits": 0, "max_v": 1000.0, "range_v": 1000.0}),
            "adc": parameters.adc.model_copy(update={"bits": 0, "gain_drift_sigma": 0.0}),
            # `Laboratory.amplitudes` applies the extinction, so that it is relative to the light that there is.
            "modulator": parameters.modulator.model_copy(update={"extinction_db": 0.0}),
            "limits": free,
        }
    )


class Laboratory:
    """One chip with its light, its loads and its detectors.

    Parameters
    ----------
    parameters
        The chip (`load_chip`).
    v_pi
        Half-wave voltage of the input modulators [V]: field amplitude |sin(π V / 2 V_π)|.
    laser_max_w
        Output of the laser at which the chip gets its full power; the rest is lost in fibre and couplers.
    stamped
        Detectors show the number of the measurement instead of light, so that every reading can be traced to its
        measurement.
    has_switch
        An optical switch lights one input port at a time. There are no modulators.
    """

    def __init__(
        self,
        parameters: ChipParameters,
        *,
        v_pi: float = 4.0,
        laser_max_w: float = 0.02,
        stamped: bool = False,
        has_switch: bool = False,
    ) -> None:
        self.parameters = parameters
        self.v_pi = v_pi
        self.laser_max_w = laser_max_w
        self.stamped = stamped
        self.has_switch = has_switch
        self.lit_port: int | None = None
        """The input port that the optical switch lights; None if it is dark."""
        self.chip = Chip(bench_chip(parameters), threads=1)
        description = self.chip.describe()
        self.stages = description.stages
        self.full_scale_a = description.readout.full_scale
        self.heater_v = np.zeros(description.channels)
        self.modulator_v = np.zeros(description.input_ports)
        self.light = LaserLight()
        self.peak_v = np.zeros(description.channels)
        """Highest voltage so far at each heater [V]."""
        self.peak_power_w = 0.0
        """Highest nominal power of all heaters together at any measurement [W]."""
        entry_bytes = 256 + 8 * (self.heater_v.size + self.modulator_v.size + max(s.tap_ports for s in self.stages))
        self.log: deque[Measurement] = deque(maxlen=_LOG_BYTES // entry_bytes)
        """The last measurements, oldest first."""
        self.before_measuring: list[Callable[[], None]] = []
        """Called before each measurement: instruments whose outputs change with time update them here."""
        self.physics_s = 0.0
        """Wall time that measurements have taken [s]."""
        self._sequence = 0
        self._is_applied = False
        self._passed_s = 0.0

    @property
    def measurements(self) -> int:
        """Number of measurements so far."""
        return self._sequence

    @property
    def detectors(self) -> int:
        """Number of detectors of all stages. They are counted stage by stage."""
        return sum(stage.tap_ports for stage in self.stages)

    def heater(self, channel: int) -> Load:
        """Return the heater of a channel of the chip, as the load of a source."""

        def hold(volts: float) -> None:
            if self.heater_v[channel] != volts:
                self.heater_v[channel] = volts
                self.peak_v[channel] = max(self.peak_v[channel], abs(volts))
                self._is_applied = False

        dead_from_s = [fault.at_s for fault in self.parameters.faults if (fault.kind, fault.channel) == ("dead_heater", channel)]

        def is_open() -> bool:
            return any(at_s <= self.chip.status().clock_s + self._passed_s for at_s in dead_from_s)

        return Load(hold, self.parameters.heater.resistance_ohm, is_open)

    def modulator(self, port: int) -> Load:
        """Return the modulator of an input port, as the load of a source. It is a capacitor and draws no current."""

        def hold(volts: float) -> None:
            self.modulator_v[port] = volts

        return Load(hold)

    def set_switch(self, port: int | None) -> None:
        """Light one input port with the optical switch; None: no port."""
        self.lit_port = port

    def set_light(self, light: LaserLight) -> None:
        """Set the output of the laser in use."""
        self.light = light

    def monitor(self) -> LaserLight:
        """Return the light at the power meter."""
        power_w = self.light.power_w * MONITOR_SHARE if self.light.is_on else 0.0
        return replace(self.light, power_w=power_w)

    def amplitudes(self) -> NDArray[np.float32]:
        """Return the field amplitudes at the input ports, shape (input ports,).

        1 is full transmission at the laser's full power.
        """
        light = self.light
        if not light.is_on:
            return np.zeros(self.modulator_v.size, np.float32)
        detuning = (light.wavelength_nm - CENTRE_NM) / GRATING_FWHM_NM
        share = light.power_w / self.laser_max_w * math.exp(-4.0 * math.log(2.0) * detuning**2)
        if self.has_switch:
            return np.sqrt(share * (np.arange(self.modulator_v.size) == self.lit_port)).astype(np.float32)
        extinction_db = self.parameters.modulator.extinction_db
        leak = 10.0 ** (-extinction_db / 10.0) if extinction_db else 0.0
        passed = leak + (1.0 - leak) * np.sin(0.5 * np.pi / self.v_pi * self.modulator_v) ** 2
        return np.sqrt(share * passed).astype(np.float32)

    def let_pass(self, duration_s: float) -> None:
        """Advance the chip's clock [s] by the time that real instruments would take, waited for or not."""
        self._passed_s += duration_s

    def measure(self, stage: int) -> NDArray[np.float64]:
        """Measure the photocurrents of a stage's detectors [A], or return stamps; shape (tap ports,)."""
        began_s = time.perf_counter()
        for update in self.before_measuring:
            update()
        self._sequence += 1
        here = self.stages[stage]
        self.chip.let_pass(self._passed_s)
        self._passed_s = 0.0
        if not self._is_applied:
            volts = np.abs(self.heater_v)  # heating does not depend on the sign
            self.chip.apply(volts)
            power_w = float(np.dot(volts, volts)) / self.parameters.heater.resistance_ohm
            self.peak_power_w = max(self.peak_power_w, power_w)
            self._is_applied = True
        if self.stamped:
            current_a = np.full(here.tap_ports, stamp_a(self._sequence, self.full_scale_a[stage]))
        else:
            held = np.abs(self.heater_v[here.first_channel : here.first_channel + here.channels])
            readings = self.chip.evaluate(held[np.newaxis], self.amplitudes()[np.newaxis], here.name)
            current_a = readings.values[0, 0].astype(np.float64)
        entry = Measurement(self._sequence, stage, self.heater_v.copy(), self.modulator_v.copy(), self.light.is_on, current_a)
        self.log.append(entry)
        self.physics_s += time.perf_counter() - began_s
        return current_a

    def detector_v(self, detectors: Sequence[int]) -> NDArray[np.float64]:
        """Measure the outputs of the amplifiers of `detectors` [V]. Each stage among them is measured once."""
        measured: dict[int, NDArray[np.float64]] = {}
        volts = np.zeros(len(detectors))
        for i, detector in enumerate(detectors):
            stage, port = self._place(detector)
            if stage not in measured:
                measured[stage] = self.measure(stage) * (AMPLIFIER_V / self.full_scale_a[stage])
            volts[i] = measured[stage][port]
        return volts

    def close(self) -> None:
        """End the chip's threads."""
        self.chip.close()

    def _place(self, detector: int) -> tuple[int, int]:
        """Return the stage of a detector, and its tap port there."""
        port = detector
        for index, stage in enumerate(self.stages):
            if port < stage.tap_ports:
                return index, port
            port -= stage.tap_ports
        raise IndexError(f"detector is {detector}, expected one below {self.detectors}")


def stamp_a(sequence: int, full_scale_a: float) -> float:
    """Return the photocurrent [A] that encodes the number of a measurement."""
    return full_scale_a * _STAMP_TOP * (sequence % STAMPS) / STAMPS


def stamped_sequence(current_a: float, full_scale_a: float) -> int:
    """Return the number of the measurement, modulo STAMPS, that a stamped reading encodes."""
    return round(current_a / full_scale_a / _STAMP_TOP * STAMPS) % STAMPS
