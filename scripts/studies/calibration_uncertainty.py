"""Are the uncertainties of a calibration honest? Errors of its parameters divided by their standard deviations.

    python scripts/studies/calibration_uncertainty.py [--preset soi] [--ports 4] [--seeds 0 30] [--json]

Each chip is calibrated from outside, and compared with its true parameters at that time. Parameters that readings do
not determine, such as those of a gauge, are left out: their standard deviation is more than half of the prior's. A row
has one kind of parameter: their number, the robust standard deviation of the normalised errors around 0, and their
median. 0.8 to 1.3 is honest.

The simulator computes heat from far heaters on a coarse grid, so no chip has exactly the law of crosstalk that it is
given. `crosstalk_share` and `crosstalk_exponent` are compared with that law, and `heat_response` with 0.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
from verify_calibration import calibrated, chip_parameters, prior_of

from photonloop.controller.calibration.twin_layout import TwinLayout
from photonloop.controller.calibration.twin_parameters import TwinParameters, filled, pack, slices
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.physics import photodiode
from photonloop.simulator.truth import reference

NORMAL_MAD = 1.4826


def true_parameters(chip: Chip, layout: TwinLayout) -> TwinParameters:
    """Return the true values of the first stage at the present time of the chip's clock."""
    own, stage, inputs, moment = chip.parameters, chip.stages[0], chip.input_truth(), reference.moment_now(chip)
    added_rad = chip.ambient().offset_rad(0, moment, stage.truth.imbalance, reference.heating_k(chip, moment))
    factors = chip.ambient().input_factors([moment], inputs.path_m, reference.heating_k(chip, moment))
    factor = np.ones(layout.ports) if factors is None else factors[0]
    changes = chip.ambient().converter_changes(0, moment)
    gain, added_lsb = (1.0, 0.0) if changes is None else changes
    extinction_db, saturation_a = own.modulator.extinction_db, own.photodiode.saturation_a
    return filled(
        layout,
        offset_rad=stage.truth.offset_rad + (0.0 if added_rad is None else added_rad),
        kappa=own.heater.resistance_ohm * own.heater.pi_power_w / (stage.truth.resistance_ohm * stage.truth.pi_power_w),
        curvature=own.heater.curvature,
        self_heating=own.heater.self_heating,
        crosstalk_share=own.crosstalk.fraction,
        crosstalk_exponent=own.crosstalk.exponent,
        ground_ratio=own.heater.ground_ohm / own.heater.resistance_ohm,
        coupler_error_rad=stage.truth.coupler_error_rad,
        loss_db=stage.truth.loss_db,
        shifter_db=own.loss.shifter_db,
        level=stage.levels.ampere * chip.ambient().laser_power(moment),
        input_gain=inputs.amplitude * np.abs(factor),
        input_phase_rad=inputs.phase_rad + np.angle(factor),
        input_leak=10 ** (-extinction_db / 20) if extinction_db else 0.0,
        input_coupling=np.sqrt(own.modulator.crosstalk),
        detector_gain=stage.truth.responsivity * gain,
        detector_dark=own.photodiode.dark_a * gain + (stage.truth.zero_lsb + added_lsb) * stage.levels.code_a,
        compression=layout.full_scale / saturation_a if saturation_a else 0.0,
        detector_memory=photodiode.kept_share(own.photodiode, own.sample_s),
    )


def normalised_errors(preset: str, ports: int, seed: int) -> dict[str, Any]:
    """Return the normalised errors of one chip by kind of parameter, without those that readings do not determine."""
    chip = Chip(chip_parameters(preset, ports, "clements", seed), threads=1)
    found = calibrated(chip, "columns", seed)
    true = true_parameters(chip, found.layout)
    turns = {"offset_rad", "input_phase_rad"}
    wrapped = {
        kind: np.angle(np.exp(1j * (getattr(found.parameters, kind) - getattr(true, kind)))) + getattr(true, kind)
        for kind in turns
    }
    error, sigma = pack(replace(found.parameters, **wrapped)) - pack(true), pack(found.sigma)
    known = (sigma > 0) & (sigma < 0.5 * pack(prior_of(chip, true.detector_dark).sigma))
    known[slices(found.layout)["level"]] = True
    return {
        kind: (error[part] / np.where(sigma[part] > 0, sigma[part], 1.0))[known[part]]
        for kind, part in slices(found.layout).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="soi")
    parser.add_argument("--ports", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs=2, default=[0, 30], help="first seed, and the one after the last")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    errors: dict[str, list[float]] = defaultdict(list)
    for seed in range(*args.seeds):
        for kind, values in normalised_errors(args.preset, args.ports, seed).items():
            errors[kind] += list(values)
    rows = {
        kind: {
            "number": len(values),
            "robust_sd": round(float(NORMAL_MAD * np.median(np.abs(values))), 2),
            "median": round(float(np.median(values)), 2),
        }
        for kind, values in errors.items()
        if values
    }
    if args.json:
        print(json.dumps(rows))
        return
    for kind, row in rows.items():
        print(f"{kind:20} {row['number']:6d} {row['robust_sd']:7.2f} {row['median']:+7.2f}")


if __name__ == "__main__":
    main()
