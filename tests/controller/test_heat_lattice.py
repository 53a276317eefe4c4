"""Thermal crosstalk as a convolution, against the same crosstalk as a sum over pairs."""

from __future__ import annotations

import numpy as np
import pytest
from support.chips import chip_of
from support.twins import drawn

from photonloop.controller.calibration import twin_layout
from photonloop.controller.calibration.heater_phases import CrosstalkModel, heater_phases, phases_adjoint
from photonloop.controller.calibration.twin_parameters import nominal_prior


@pytest.mark.parametrize("reach_m", [4e-4, 3e-3])
def test_convolution_and_pairs_give_the_same_phases_and_slopes(reach_m: float, monkeypatch: pytest.MonkeyPatch) -> None:
    description = chip_of("soi", {}, ports=9, stages=1).describe()
    pairs = twin_layout.twin_layout(description, description.stages[0], reach_m)
    monkeypatch.setattr(twin_layout, "LATTICE_PORTS", 8)
    lattice = twin_layout.twin_layout(description, description.stages[0], reach_m)
    assert pairs.lattice is None and lattice.lattice is not None and lattice.near_ln.size == 0
    assert lattice.distance_ln.min() == pytest.approx(pairs.distance_ln.min())
    rng = np.random.default_rng(1)
    own = drawn(pairs, nominal_prior(pairs, 1.0), rng)
    x, slopes = rng.uniform(0, 7, (3, pairs.channels)), rng.standard_normal((3, pairs.channels))
    found = []
    for layout in (pairs, lattice):
        crosstalk = CrosstalkModel(layout, own.crosstalk_share, own.crosstalk_exponent)
        at = heater_phases(layout, own, crosstalk, x)
        back = phases_adjoint(layout, own, crosstalk, at, slopes)
        found.append((at.effective, back.by_x, back.by_kappa, back.by_scalars))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_uneven_spacing_has_no_lattice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin_layout, "LATTICE_PORTS", 2)
    description = chip_of("soi", {}, ports=4, stages=1).describe()
    stage = description.stages[0]
    assert stage.geometry is not None
    uneven = stage.geometry.model_copy(update={"mode_y_m": (0.0, 5e-5, 1.2e-4, 1.7e-4)})
    layout = twin_layout.twin_layout(description, stage.model_copy(update={"geometry": uneven}))
    assert layout.lattice is None and layout.near_ln.size > 0
