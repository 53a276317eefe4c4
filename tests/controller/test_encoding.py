"""Encoding: amplitudes in [0, 1], ranges from the training set only, and a count of limited values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from photonloop.controller.data.data_checks import DataError
from photonloop.controller.data.encoding import EncodingSpec, Scale, encode, fit_encoding

_TRAIN = np.array([[0.0, 10.0, 5.0], [4.0, 30.0, 5.0], [2.0, 20.0, 5.0]], dtype=np.float32)


def test_feature_scale_uses_the_range_of_each_feature() -> None:
    encoded = encode(_TRAIN, fit_encoding(_TRAIN, EncodingSpec()), 3)
    np.testing.assert_array_equal(encoded.amplitudes, np.array([[0, 0, 0], [1, 1, 0], [0.5, 0.5, 0]], dtype=np.float32))
    assert encoded.clipped == 0 and encoded.amplitudes.dtype == np.float32


def test_global_scale_keeps_proportions() -> None:
    encoded = encode(_TRAIN, fit_encoding(_TRAIN, EncodingSpec(scale="global")), 3)
    np.testing.assert_allclose(encoded.amplitudes, _TRAIN / 30.0, rtol=1e-6)


def test_image_scale_divides_by_the_maximum_of_the_image() -> None:
    images = np.concatenate([_TRAIN, np.zeros((1, 3), np.float32)])
    encoded = encode(images, fit_encoding(images, EncodingSpec(scale="image")), 3)
    np.testing.assert_allclose(encoded.amplitudes[:3], _TRAIN / _TRAIN.max(axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(encoded.amplitudes[3], 0)


@pytest.mark.parametrize(
    ("scale", "expected", "clipped"),
    [("feature", [[1.0, 0.0, 0.0]], 3), ("global", [[8 / 30, 0.0, 1.0]], 2), ("image", [[0.2, 0.0, 1.0]], 1)],
)
def test_values_outside_the_training_range_are_limited_and_counted(
    scale: Scale, expected: list[list[float]], clipped: int
) -> None:
    encoding = fit_encoding(_TRAIN, EncodingSpec(scale=scale))
    encoded = encode(np.array([[8.0, -1.0, 40.0]], dtype=np.float32), encoding, 3)
    np.testing.assert_allclose(encoded.amplitudes, expected, rtol=1e-6)
    assert encoded.clipped == clipped


def test_remaining_ports_are_dark() -> None:
    encoded = encode(_TRAIN, fit_encoding(_TRAIN, EncodingSpec()), 8)
    assert encoded.amplitudes.shape == (3, 8)
    np.testing.assert_array_equal(encoded.amplitudes[:, 3:], 0)


@settings(max_examples=60, deadline=None)
@given(
    scale=st.sampled_from(["feature", "global", "image"]),
    x=arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(0, 2.0**127, width=32)),
    other=arrays(np.float32, st.tuples(st.integers(1, 6), st.just(5)), elements=st.floats(-(2.0**120), 2.0**120, width=32)),
)
def test_amplitudes_stay_in_the_unit_interval(scale: Scale, x: np.ndarray, other: np.ndarray) -> None:
    encoding = fit_encoding(x, EncodingSpec(scale=scale))
    train = encode(x, encoding, 6)
    assert train.clipped == 0
    test = encode(other[:, : x.shape[1]], encoding, 6)
    for amplitudes in (train.amplitudes, test.amplitudes):
        assert np.all((amplitudes >= 0) & (amplitudes <= 1))


def test_encoding_of_a_sample_does_not_depend_on_other_samples() -> None:
    x = np.random.default_rng(0).normal(size=(9001, 4)).astype(np.float32)
    encoding = fit_encoding(x, EncodingSpec())
    whole = encode(x, encoding, 4).amplitudes
    oracle = (x.astype(np.float64) - x.min(axis=0)) / (x.max(axis=0).astype(np.float64) - x.min(axis=0))
    np.testing.assert_allclose(whole, oracle, atol=1e-7)
    np.testing.assert_array_equal(encode(x[8000:8003], encoding, 4).amplitudes, whole[8000:8003])


def test_unusable_data_is_refused() -> None:
    encoding = fit_encoding(_TRAIN, EncodingSpec())
    wide = np.zeros((2, 65), np.float32)
    with pytest.raises(DataError, match="the data has 65 features, but the device has 64 input ports"):
        encode(wide, fit_encoding(wide, EncodingSpec()), 64)
    with pytest.raises(DataError, match="the data has 65 features, but the encoding was made for 3"):
        encode(wide, encoding, 64)
    with pytest.raises(DataError, match=r"x contains NaN or infinity in row 1"):
        encode(np.array([[1, 2, 3], [1, np.nan, 3]], np.float32), encoding, 4)
    with pytest.raises(DataError, match=r"x_train contains -2, but encoding.scale 'image'"):
        fit_encoding(-_TRAIN[1:, :1] * 0.5, EncodingSpec(scale="image"))
    with pytest.raises(DataError, match=r"shape \(0, 3\)"):
        fit_encoding(_TRAIN[:0], EncodingSpec())


def test_reference_light_is_on_the_port_after_the_features() -> None:
    x = np.array([[0.0, 1.0], [2.0, 0.0]], dtype=np.float32)
    encoding = fit_encoding(x, EncodingSpec(reference=0.5))
    amplitudes = encode(x, encoding, 4).amplitudes
    np.testing.assert_allclose(amplitudes, [[0, 1, 0.5, 0], [1, 0, 0.5, 0]])
    with pytest.raises(DataError, match="2 features and encoding.reference takes a port, but the device has 2 input ports"):
        encode(x, encoding, 2)
