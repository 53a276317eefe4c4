"""Print the parameters of the twin with their prior, as the table of `docs/calibration.md`.

    python scripts/twin_prior_table.py

The level and the dark readings are measured before a fit, so their prior is given relative to what was measured.
"""

from __future__ import annotations

import numpy as np

from photonloop.controller.calibration.twin_layout import TwinLayout, twin_layout
from photonloop.controller.calibration.twin_parameters import KINDS, TwinPrior, nominal_prior, shapes
from photonloop.protocols.device import (
    DeviceDescription,
    DriveDescription,
    LimitsDescription,
    ReadoutDescription,
    StageDescription,
)

MEANINGS = {
    "offset_rad": ("phase of an arm at 0 V", "rad", "uniform: path lengths are not known"),
    "kappa": ("nominal power for π divided by that of the heater", "", "Harris 2014: 1.6 % between heaters"),
    "curvature": ("η: φ = π p (1 + ηp)/(1 + η), p = P/P_π", "", "Jacques 2019: 0.012 in silicon; its sign is open elsewhere"),
    "self_heating": ("ρ: R = R₀ (1 + ρp)", "", "0 to 0.1, by the material of the heater"),
    "crosstalk_share": ("share of a heater's power at 100 µm", "", "0.5 % at mesh pitch in published meshes"),
    "crosstalk_exponent": ("exponent of its decay with distance", "", "1 from 5 µm to 100 µm (Jacques 2019)"),
    "heat_response": ("phase by a slow component of the heat, beyond this law", "rad", "edges of the chip"),
    "ground_ratio": ("resistance of a shared ground conductor / that of a heater", "", "tens of milliohms"),
    "coupler_error_rad": ("angle of a coupler less π/4", "rad", "0.02 rad on silicon chips"),
    "loss_db": ("loss of an interferometer in both arms", "dB", "0.1 to 0.2 dB, shifters included"),
    "shifter_db": ("loss of a phase shifter in its arm", "dB", "0.1 to 0.2 dB, couplers included"),
    "level": ("reading per unit of power at a detector", "measured", "measured"),
    "input_gain": ("relative amplitude of an input", "", "3 to 5 % between couplers"),
    "input_phase_rad": ("relative phase of an input", "rad", "uniform"),
    "input_leak": ("field of an input at amplitude 0", "", "extinction of 20 to 30 dB"),
    "input_coupling": ("field that couples to the neighbouring input", "", "−30 to −40 dB"),
    "detector_gain": ("relative gain of a detector", "", "responsivities within 3 %"),
    "detector_dark": ("reading without light", "full scale", "measured"),
    "compression": ("i → i / (1 + c · i / full scale)", "", "by the detector"),
    "detector_memory": ("share of its output that a detector keeps from sample to sample", "", "by its bandwidth"),
}
"""Meaning, unit and source of each kind of parameters."""


def example_layout(ports: int = 8) -> TwinLayout:
    """Return the layout of a rectangular mesh, of which only the numbers of parameters matter here."""
    places = [(column, mode) for column in range(ports) for mode in range(column % 2, ports - 1, 2)]
    count = len(places)
    stage = StageDescription(
        name="mesh",
        topology="clements",
        ports=ports,
        first_channel=0,
        channels=2 * count + ports,
        groups={"theta": (0, count), "phi": (count, 2 * count), "gamma": (2 * count, 2 * count + ports)},
        layout=tuple((column, mode, k, count + k) for k, (column, mode) in enumerate(places)),
        tap_ports=ports,
    )
    device = DeviceDescription(
        name="example",
        kind="simulator",
        input_ports=ports,
        phases_settable=False,
        stages=(stage,),
        drive=DriveDescription(min_v=0.0, max_v=8.0, settle_s=0.0, resistance_ohm=1.0, pi_power_w=1.0),
        readout=ReadoutDescription(full_scale=(1.0,), sample_s=0.0),
        limits=LimitsDescription(voltage_v=8.0, max_batch=1, max_settings=1, max_readings=1, max_loaded_bytes=1),
        clock="virtual",
    )
    return twin_layout(device, stage)


def table(layout: TwinLayout, prior: TwinPrior) -> list[str]:
    """Return the rows of the table."""
    rows = ["| parameter | number at N = 8 | meaning | unit | prior | source |", "|---|---|---|---|---|---|"]
    for kind in KINDS:
        meaning, unit, source = MEANINGS[kind]
        count = int(np.prod(shapes(layout)[kind], dtype=np.int64))
        mean, sigma = (float(np.median(getattr(part, kind))) for part in (prior.mean, prior.sigma))
        rows.append(f"| `{kind}` | {count} | {meaning} | {unit} | {mean:.3g} ± {sigma:.3g} | {source} |")
    return rows


def main() -> None:
    layout = example_layout()
    print("\n".join(table(layout, nominal_prior(layout, 1.0))))


if __name__ == "__main__":
    main()
