"""The report of a calibration: right numbers, escaped, self-contained, small, and possible if parts are missing."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from support.calibrations import bank_calibration, calibration_of
from support.html_pages import HtmlPage, assert_self_contained

from photonloop.controller.calibration.calibrated_device import Calibration, HeldOut, Trouble
from photonloop.controller.calibration.evidence import CalibrationEvidence, CandidateTerm, Fringe, gather_evidence
from photonloop.controller.calibration.twin_misfit import Observations
from photonloop.controller.calibration.twin_parameters import KINDS
from photonloop.controller.report.calibration_banks import ring_influences
from photonloop.controller.report.calibration_crosstalk import crosstalk_law, crosstalk_map
from photonloop.controller.report.calibration_deviations import deviation_groups, largest_deviations
from photonloop.controller.report.calibration_fringes import MOST_FRINGES, fringe_drawing, fringe_residual
from photonloop.controller.report.calibration_names import heater_names, trouble_place
from photonloop.controller.report.calibration_sections import stage_warnings
from photonloop.controller.report.calibration_values import fitted_values
from photonloop.controller.report.calibration_writer import render_calibration, write_calibration_report
from photonloop.controller.report.display_text import quantity_text, short_text, uncertain_text
from photonloop.protocols.config import ConfigError

Made = tuple[Calibration, tuple[CalibrationEvidence, ...]]

DEAD = Trouble("dead heater", "mesh0", channels=(2,), detail="Channel 2 draws no current at 2 V; its θ is left out.")


@pytest.fixture(scope="module")
def made() -> Made:
    return calibration_of(ports=4, settings=12, held_out=6, swept=16, troubles=(DEAD,))


@pytest.fixture(scope="module")
def page(made: Made) -> HtmlPage:
    return HtmlPage(render_calibration(*made))


def test_shows_the_numbers_of_the_calibration(made: Made, page: HtmlPage) -> None:
    found = made[0].stages[0]
    tvd, residual = np.median(found.held_out.tvd), np.median(found.held_out.residual)
    assert residual == pytest.approx(1, abs=0.2)  # the true parameters and noise of known size
    own = found.parameters
    for words in (
        "Calibration of soi", "seed 0", "2026-11-25 16:00:00 UTC", f"{tvd:.2%}", f"{residual:.3g} × noise",
        "6 settings were read and not fitted", "12 fitted, 6 held out", f"{12 + 6 + 16 * 24}",
        "diagonal, with one input lit at a time", "temperature_c 25.0123", "clock of the device 42.5 s",
        f"{100 * own.crosstalk_share:.4f} ± 0.0080 %", f"{own.curvature:.5f} ± 0.00040", "noise of a dark reading 2 nA",
        "All 288 readings of the random settings were used.", "dead heater", "channel 2, θ(1, 1)", DEAD.detail,
        "θ(0, 0)", "γ(3)", "rms, median over the heaters", "not known: they are not part of the matrix",
    ):  # fmt: skip
        assert words in page.text, words
    assert "exceeds the noise" not in page.text


def test_is_self_contained_also_with_several_stages() -> None:
    text = render_calibration(*calibration_of(ports=4, stages=2, settings=4, held_out=4, swept=2))
    assert_self_contained(text, HtmlPage(text))
    assert text.count("<h2>Stage ") == 2


def test_is_written_beside_the_calibration(tmp_path: Path, made: Made) -> None:
    path = write_calibration_report(tmp_path / "chip.json", *made)
    first = path.read_bytes()
    assert path == tmp_path / "chip.html"
    assert write_calibration_report(tmp_path / "chip.json", *made).read_bytes() == first
    with pytest.raises(ConfigError, match="cannot be written"):
        write_calibration_report(tmp_path / "nowhere" / "chip.json", *made)


def test_all_text_is_escaped(made: Made) -> None:
    evil = "<script>alert('x')</script>&\"$\\frac{"
    calibration = made[0]
    device = calibration.device.model_copy(update={"name": evil, "serials": {evil: evil}})
    stage = calibration.stages[0].stage.model_copy(update={"name": evil, "topology": evil})
    trouble = dataclasses.replace(DEAD, stage=evil, detail=evil)
    stages = tuple(dataclasses.replace(found, stage=stage, troubles=(trouble,)) for found in calibration.stages)
    evidence = dataclasses.replace(made[1][0], stage=evil, candidates=(CandidateTerm(evil, 0.1),))
    changed = dataclasses.replace(calibration, device=device, stages=stages, conditions={evil: evil}, made=evil)
    text = render_calibration(changed, [evidence])
    found = HtmlPage(text)
    assert "script" not in found.tags and "<script" not in text
    assert found.text.count("<script>") >= 7


def test_without_evidence_held_out_settings_and_uncertainties(made: Made) -> None:
    empty = HeldOut(np.empty(0), np.empty(0), np.empty(0))
    stages = tuple(dataclasses.replace(found, held_out=empty, draws=found.draws[:0], troubles=()) for found in made[0].stages)
    text = HtmlPage(render_calibration(dataclasses.replace(made[0], stages=stages))).text
    for words in (
        "No setting was held out, so the calibration is not tested.", "There are no sweeps of single heaters.",
        "No trouble was found.", "Troubles none", "TVD of held-out settings –", "not computed",
        "The readings of the random settings are not available.",
    ):  # fmt: skip
        assert words in text, words
    assert "No stage was calibrated." in HtmlPage(render_calibration(dataclasses.replace(made[0], stages=()))).text


def test_twin_without_crosstalk_and_without_geometry(made: Made) -> None:
    found = made[0].stages[0]
    cold = dataclasses.replace(found.parameters, crosstalk_share=0.0)
    changed = dataclasses.replace(found, parameters=cold, stage=found.stage.model_copy(update={"geometry": None}), troubles=())
    text = HtmlPage(render_calibration(dataclasses.replace(made[0], stages=(changed,)))).text
    assert "The twin has no thermal crosstalk." in text


def test_a_large_residual_is_reported_with_the_best_candidate() -> None:
    held_out = HeldOut(np.array([2.0, 3.0, 4.0]), np.zeros(3), np.zeros(3))
    (alone,) = stage_warnings(held_out, ())
    assert "exceeds the noise of the readings by a factor of 3:" in alone and "tried" not in alone
    terms = (CandidateTerm("stray light", 2.5), CandidateTerm("heat in bare waveguides", 1.1), CandidateTerm("a ground", 2.9))
    (best,) = stage_warnings(held_out, terms)
    assert "heat in bare waveguides lowers it most if added alone, to 1.1." in best
    (useless,) = stage_warnings(held_out, (CandidateTerm("stray light", 3.2),))
    assert "None of the effects that were tried lowers it." in useless
    assert stage_warnings(dataclasses.replace(held_out, residual=np.array([1.1, 0.9, 1.2])), terms) == []


def test_readings_that_were_not_used_are_counted(made: Made) -> None:
    (evidence,) = made[1]
    measured = evidence.measured.copy()
    measured[0, 1, 2] = measured[3] = np.nan
    text = HtmlPage(render_calibration(made[0], [dataclasses.replace(evidence, measured=measured)])).text
    assert "17 of 288 readings of the random settings were saturated or flagged, and were not used." in text


@pytest.mark.slow
def test_64_ports_fit_in_two_megabytes() -> None:
    made = calibration_of(ports=64, stages=2, settings=6, held_out=4, samples=16, swept=MOST_FRINGES // 2 + 1)
    text = render_calibration(*made)
    assert len(text.encode()) < 2e6
    assert f"{MOST_FRINGES // 2} of {MOST_FRINGES // 2 + 1} fringes are shown" in HtmlPage(text).text


def test_evidence_has_predictions_and_equal_numbers_of_samples(made: Made) -> None:
    found, (evidence,) = made[0].stages[0], made[1]
    assert np.allclose(evidence.measured, evidence.predicted, rtol=0.01, atol=2e-8)  # the true parameters
    few = Observations(evidence.settings[:2], np.eye(4)[:3], evidence.measured[:2, :3])
    many = Observations(evidence.settings[2:3], np.eye(4), evidence.measured[2:3])
    joined = gather_evidence(found, few, many)
    assert joined.measured.shape == joined.predicted.shape == (3, 4, 4)
    assert np.isnan(joined.measured[:2, 3]).all() and np.isnan(joined.predicted[:2, 3]).all()
    assert joined.held_out.tolist() == [False, False, True]


def test_crosstalk_of_the_map_follows_the_law_and_the_geometry() -> None:
    """Shares from the coordinates of the description, one heater after the other."""
    calibration, _ = calibration_of(ports=6, settings=1, held_out=1)
    found = calibration.stages[0]
    layout, geometry, own = found.layout, found.stage.geometry, found.parameters
    drawn = crosstalk_map(found)
    assert geometry is not None and drawn is not None
    assert geometry.gamma_x_m is not None
    x: dict[int, float] = dict.fromkeys(range(layout.channels), geometry.gamma_x_m)
    y = {channel: geometry.mode_y_m[mode] for mode, channel in enumerate(layout.gamma)}
    for column, top, theta, phi in found.stage.layout:
        x[theta], x[phi] = geometry.theta_x_m[column], geometry.phi_x_m[column]
        y[theta] = y[phi] = geometry.mode_y_m[top]
    heater = heater_names(layout).index(drawn.heater)
    total = sum(
        own.crosstalk_share * (1e-4 / np.hypot(x[k] - x[heater], y[k] - y[heater])) ** own.crosstalk_exponent
        for k in range(layout.channels)
        if k != heater and np.hypot(x[k] - x[heater], y[k] - y[heater]) <= 3e-3
    )
    assert drawn.total == pytest.approx(total, rel=1e-9)
    pitch = geometry.mode_y_m[1] - geometry.mode_y_m[0]
    assert drawn.largest == pytest.approx(own.crosstalk_share * (1e-4 / pitch) ** own.crosstalk_exponent, rel=1e-9)
    law = crosstalk_law(found)
    assert law is not None
    assert law.distance_m[0] == pytest.approx(pitch) and law.share[0] == pytest.approx(drawn.largest)
    # At 100 µm the uncertainty is that of the share alone.
    at = np.argmin(np.abs(law.distance_m - 1e-4))
    assert law.sigma[at] == pytest.approx(found.sigma.crosstalk_share, rel=0.35)


def test_an_odd_parameter_is_the_largest_deviation() -> None:
    calibration, _ = calibration_of(ports=8, settings=1, held_out=1)
    found = calibration.stages[0]
    kappa, gain = found.parameters.kappa.copy(), found.parameters.detector_gain.copy()
    errors = found.parameters.coupler_error_rad.copy()
    kappa[found.layout.theta[9]], errors[4, 1] = 1.4, -0.7
    changed = dataclasses.replace(found.parameters, kappa=kappa, detector_gain=gain, coupler_error_rad=errors)
    groups = deviation_groups(dataclasses.replace(found, parameters=changed))
    first, second = largest_deviations(groups, 2)
    names = heater_names(found.layout)
    place = names[found.layout.theta[4]][1:]
    assert {first.place, second.place} == {names[found.layout.theta[9]], f"{place}, coupler 2"}
    assert all(abs(deviation.z) > 8 for deviation in (first, second))
    # All others are a sample of a normal distribution.
    z = np.concatenate([group.z for group in deviation_groups(found)])
    assert 0.7 < 1.4826 * np.median(np.abs(z)) < 1.3 and np.abs(z).max() < 6


def test_fringes_are_drawn_up_to_a_number_and_those_with_large_residuals_first() -> None:
    phases = np.linspace(0, 2 * np.pi, 9)
    fitted = 1e-6 * (1 + np.cos(phases))
    fringes = tuple(Fringe(k, phases, fitted * (1 + 0.01 * k * np.sin(5 * phases)), fitted) for k in range(10))
    names = [f"θ({k}, 0)" for k in range(10)]
    drawing = fringe_drawing(fringes, names, "A", most=4)
    assert drawing is not None and (drawing.shown, drawing.fringes) == (4, 10)
    assert [name for name in names if name in drawing.svg] == names[6:]
    assert drawing.worst[1] == names[9] and drawing.worst[0] == pytest.approx(fringe_residual(fringes[9]))
    assert "2 µA" in drawing.svg
    assert fringe_drawing((), names, "A") is None
    ratio = fringe_drawing((dataclasses.replace(fringes[0], fitted=fitted / 2e-6, unit=""),), names, "A")
    assert ratio is not None and ">1</text>" in ratio.svg
    flat = Fringe(0, phases, np.full(9, np.nan), np.ones(9))
    assert np.isinf(fringe_residual(flat))
    assert fringe_drawing((flat,), names, "A") is not None


def test_names_of_heaters_and_places() -> None:
    layout = calibration_of(ports=4, settings=1, held_out=1)[0].stages[0].layout
    names = heater_names(layout)
    assert names[:6] == ["θ(0, 0)", "θ(0, 2)", "θ(1, 1)", "θ(2, 0)", "θ(2, 2)", "θ(3, 1)"]
    assert names[-4:] == ["γ(0)", "γ(1)", "γ(2)", "γ(3)"] and len(set(names)) == 16
    assert trouble_place(DEAD, layout) == "channel 2, θ(1, 1)"
    swapped = Trouble("swapped inputs", "mesh0", ports=(0, 3))
    assert trouble_place(swapped, layout) == "port 0; port 3"
    assert trouble_place(Trouble("no signal", "mesh0"), layout) == "the whole stage"


def test_values_have_as_many_digits_as_their_uncertainty() -> None:
    assert uncertain_text(0.0041234, 0.00021) == "0.00412 ± 0.00021"
    assert uncertain_text(4.1234e-5, 2.1e-6, "A") == "41.2 ± 2.1 µA"
    assert uncertain_text(-2.03e-6, 1e-8) == "(−2.030 ± 0.010) × 10⁻⁶"
    assert uncertain_text(1234.5, 67.8, "dB") == "1234 ± 68 dB"
    assert uncertain_text(0.5, 0.0) == "0.5" and uncertain_text(np.nan, 1.0) == "–"
    assert quantity_text(1.234e-5, "A") == "12.3 µA" and quantity_text(0.0, "A") == "0 A"
    found = calibration_of(ports=4, settings=1, held_out=1)[0].stages[0]
    rows = {row.name: row for row in fitted_values(found, "A")}
    assert not set(rows) & set(KINDS), "a kind has no name"
    gains = rows["gains of the detectors"]
    own = found.parameters.detector_gain
    assert gains.count == 4 and gains.value == uncertain_text(float(own.mean()), float(own.std()))
    assert gains.sigma == f"{found.sigma.detector_gain[0]:.3g}"
    assert short_text(4.966e-5, "rad") == "4.97 × 10⁻⁵ rad" and short_text(-0.5) == "−0.5" and short_text(2e-6, "A") == "2 µA"
    assert rows["phase at 0 V"].value == "random" and "nA" in rows["dark readings"].value
    assert re.fullmatch(r"2\.500 ± 0\.025 mA", rows["reading per unit of power at the detectors"].value)


def test_a_weight_bank_has_its_weights_and_influences() -> None:
    calibration = bank_calibration(rows=4)
    text = render_calibration(calibration)
    found, page = calibration.banks[0], HtmlPage(text)
    assert_self_contained(text, page)
    residual = float(np.median(found.held_out.residual))
    for words in (
        "Weight bank bank", f"{residual:.3g} × noise", "TVD of held-out settings –", "321", "rings, one after the other",
        "or, relative to their rms, by 0.40%", "phases of the wavelengths in a ring", "No trouble was found.",
    ):  # fmt: skip
        assert words in page.text, words
    # Each ring's own heater turns it by about π; of the others, the explicit influences are part of what is drawn.
    influences = ring_influences(found)
    assert np.allclose(np.diag(influences), np.pi, rtol=0.15)
    without = dataclasses.replace(found, influence_rad=np.zeros_like(found.influence_rad))
    added = (influences - ring_influences(without)) / found.influence_rad
    assert np.allclose(added, added[0, 0], rtol=0.1)
