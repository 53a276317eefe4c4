"""Data sets: they hold what their source holds, and unusable data is refused with one sentence."""

import os
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.datasets import load_digits, load_iris

from photonloop.controller.data.data_checks import DataError
from photonloop.controller.data.datasets import DataSpec, load_dataset


def _archive(path: Path, **changes: object) -> Path:
    """Write a small good archive of 12 + 6 images of 6 × 5 pixels in three classes; None omits an array."""
    rng = np.random.default_rng(3)
    arrays: dict[str, object] = {
        "x_train": rng.uniform(0, 9, (12, 6, 5)).astype(np.float32),
        "y_train": np.tile([7, 3, 5], 4),
        "x_test": rng.uniform(0, 9, (6, 6, 5)).astype(np.float32),
        "y_test": np.array([3, 3, 5, 7, 7, 5]),
    }
    arrays |= changes
    np.savez(path, allow_pickle=True, **{key: value for key, value in arrays.items() if value is not None})  # pyright: ignore
    return path


def _sentence(spec: DataSpec) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(spec)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_digits_hold_all_samples_of_scikit_learn() -> None:
    data = load_dataset(DataSpec(source="digits"))
    assert data.x_train.dtype == np.float32 and data.y_train.dtype == np.int64
    assert data.feature_shape == (8, 8) and data.classes == tuple(range(10))
    assert len(data.x_test) == 360 and len(data.x_train) == 1797 - 360
    ours = np.concatenate([np.column_stack([data.x_train, data.y_train]), np.column_stack([data.x_test, data.y_test])])
    x, y = load_digits(return_X_y=True)
    theirs = np.column_stack([x, y])
    np.testing.assert_array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
    assert ours.shape == theirs.shape


def test_split_is_stratified_seeded_and_repeatable() -> None:
    data = load_dataset(DataSpec(source="iris", test_fraction=0.4))
    np.testing.assert_array_equal(np.bincount(data.y_test), [20, 20, 20])
    assert data.classes == tuple(str(name) for name in load_iris().target_names)  # pyright: ignore
    again = load_dataset(DataSpec(source="iris", test_fraction=0.4))
    np.testing.assert_array_equal(data.x_train, again.x_train)
    other = load_dataset(DataSpec(source="iris", test_fraction=0.4, split_seed=1))
    assert not np.array_equal(data.x_train, other.x_train)


def test_class_numbers_follow_the_sorted_labels(tmp_path: Path) -> None:
    data = load_dataset(DataSpec(source=str(_archive(tmp_path / "a.npz"))))
    assert data.classes == (3, 5, 7)
    np.testing.assert_array_equal(data.y_train, np.tile([2, 0, 1], 4))
    np.testing.assert_array_equal(data.y_test, [0, 0, 1, 2, 2, 1])
    assert data.x_train.shape == (12, 30) and data.feature_shape == (6, 5)


def test_labels_may_be_text_or_whole_floats(tmp_path: Path) -> None:
    names = np.array(["cat", "ant", "bee"])
    path = _archive(tmp_path / "a.npz", y_train=np.tile(names, 4), y_test=np.tile(names, 2))
    assert load_dataset(DataSpec(source=str(path))).classes == ("ant", "bee", "cat")
    path = _archive(tmp_path / "b.npz", y_train=np.tile([2.0, 0.0], 6), y_test=np.zeros(6))
    data = load_dataset(DataSpec(source=str(path)))
    assert data.classes == (0, 2) and all(type(label) is int for label in data.classes)


def test_limits_draw_at_random_and_a_larger_limit_contains_a_smaller_one(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    x = np.arange(200, dtype=np.float32).reshape(100, 2)
    np.savez(path, x_train=x, y_train=np.tile([0, 1], 50), x_test=x, y_test=np.tile([0, 1], 50))
    small = load_dataset(DataSpec(source=str(path), train_limit=20, test_limit=7))
    large = load_dataset(DataSpec(source=str(path), train_limit=60))
    assert small.x_train.shape == (20, 2) and small.x_test.shape == (7, 2) and large.x_test.shape == (100, 2)
    np.testing.assert_array_equal(small.x_train, large.x_train[:20])
    assert not np.array_equal(small.x_train, x[:20])
    # Each sample keeps its own label: row r holds (2r, 2r + 1) and has the label r mod 2.
    np.testing.assert_array_equal(small.x_train[:, 0] / 2 % 2, small.y_train)
    assert len(load_dataset(DataSpec(source=str(path), train_limit=1000)).x_train) == 100


def test_crop_keeps_the_middle_pixels(tmp_path: Path) -> None:
    image = np.arange(36, dtype=np.float32).reshape(1, 6, 6).repeat(4, axis=0)
    path = _archive(tmp_path / "a.npz", x_train=image, x_test=image, y_train=np.array([0, 1, 0, 1]), y_test=np.zeros(4, int))
    data = load_dataset(DataSpec(source=str(path), image="crop", size=2))
    np.testing.assert_array_equal(data.x_train[0], [14, 15, 20, 21])
    assert data.feature_shape == (2, 2)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 15), width=st.integers(1, 15), size=st.integers(1, 15), seed=st.integers(0, 2**16))
def test_pool_is_the_mean_over_equal_areas(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, size: int, seed: int
) -> None:
    size = min(size, height, width)
    images = np.random.default_rng(seed).uniform(0, 255, (4, height, width))
    path = tmp_path_factory.mktemp("pool") / "a.npz"
    np.savez(path, x_train=images, y_train=[0, 1, 0, 1], x_test=images, y_test=[0, 1, 0, 1])
    pooled = load_dataset(DataSpec(source=str(path), image="pool", size=size)).x_train.reshape(4, size, size)
    # Oracle: replace every pixel by size × size equal ones, so that the cells divide evenly.
    fine = images.repeat(size, axis=1).repeat(size, axis=2)
    expected = fine.reshape(4, size, height, size, width).mean(axis=(2, 4))
    np.testing.assert_allclose(pooled, expected, rtol=2e-6)


def test_mnist_from_path_and_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _archive(tmp_path / "mnist.npz")
    by_path = load_dataset(DataSpec(source="mnist", path=str(path)))
    monkeypatch.setenv("PHOTONLOOP_DATA", str(tmp_path))
    by_folder = load_dataset(DataSpec(source="mnist"))
    np.testing.assert_array_equal(by_path.x_train, by_folder.x_train)


def test_mnist_is_downloaded_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHOTONLOOP_DATA", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    calls = []

    def fetch(name: str, **_options: object) -> SimpleNamespace:
        calls.append(name)
        target = (np.arange(70000) % 10).astype(str).astype(object)
        data = np.zeros((70000, 784))
        data[:, 0] = np.arange(70000) % 256
        return SimpleNamespace(data=data, target=target)

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    first = load_dataset(DataSpec(source="mnist", train_limit=300, test_limit=50))
    again = load_dataset(DataSpec(source="mnist", train_limit=300, test_limit=50))
    assert calls == ["mnist_784"]
    assert first.feature_shape == (28, 28) and first.classes == tuple(range(10))
    np.testing.assert_array_equal(first.x_train, again.x_train)


def test_failed_download_reports_alternatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHOTONLOOP_DATA", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))

    def fetch(*_args: object, **_options: object) -> None:
        raise URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    text = _sentence(DataSpec(source="mnist"))
    assert "downloaded" in text and "Name or service not known" in text and "PHOTONLOOP_DATA" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_test": None, "y_test": None}, ["lacks x_test, y_test", "x_train, y_train"]),
        ({"y_train": np.array([{}] * 12, dtype=object)}, ["y_train", "pickled"]),
        ({"y_test": np.array([3, 3, 5, 7, 8, 9])}, ["labels missing from the training set", "8, 9"]),
        ({"y_test": np.array(list("abcabc"))}, ["y_train", "y_test", "same labels"]),
        ({"x_train": np.where(np.arange(360).reshape(12, 6, 5) == 95, np.nan, 1.0)}, ["x_train", "nan", "row 3"]),
        ({"x_test": np.full((6, 6, 5), 1e300)}, ["x_test", "1e+300", "finite"]),
        ({"x_test": np.ones((6, 6, 4))}, ["(6, 5)", "(6, 4)", "same features"]),
        ({"y_train": np.zeros(11, int)}, ["x_train", "12", "y_train", "11"]),
        ({"x_test": np.ones((5, 6, 5))}, ["x_test", "5", "y_test", "6"]),
        ({"y_train": np.linspace(0.0, 1.1, 12)}, ["y_train", "0.1", "row 1", "class labels"]),
        ({"y_train": np.array([np.nan] * 12)}, ["y_train", "nan"]),
        ({"y_train": np.zeros((12, 3))}, ["y_train", "(12, 3)"]),
        ({"x_test": np.ones((0, 6, 5)), "y_test": np.zeros(0, int)}, ["x_test", "(0, 6, 5)", "at least one"]),
        ({"x_train": np.ones((12, 0)), "x_test": np.ones((6, 0))}, ["x_train", "(12, 0)"]),
        ({"x_train": np.ones(12)}, ["x_train", "(12,)"]),
        ({"x_train": np.ones((12, 30), complex)}, ["x_train", "complex"]),
        ({"y_train": np.full(12, 3), "y_test": np.full(6, 3)}, ["only class 3", "at least 2"]),
    ],
)
def test_unusable_archives_are_refused_with_one_sentence(tmp_path: Path, changes: dict[str, object], words: list[str]) -> None:
    text = _sentence(DataSpec(source=str(_archive(tmp_path / "a.npz", **changes))))
    for word in words:
        assert word in text


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in _sentence(DataSpec(source=str(tmp_path / "none.npz")))
    assert "does not exist" in _sentence(DataSpec(source="mnist", path=str(tmp_path)))
    good = _archive(tmp_path / "good.npz").read_bytes()
    bad = tmp_path / "bad.npz"
    for content in (b"", b"not a zip", good[:100], good[: len(good) // 2], b"\x80\x04K\x01."):
        bad.write_bytes(content)
        assert "cannot be read" in _sentence(DataSpec(source=str(bad)))
    np.save(tmp_path / "single.npy", np.ones(3))
    os.replace(tmp_path / "single.npy", bad)  # noqa: PTH105
    assert "single array" in _sentence(DataSpec(source=str(bad)))


def test_a_flipped_byte_never_raises_another_error(tmp_path: Path) -> None:
    good = _archive(tmp_path / "good.npz").read_bytes()
    bad = tmp_path / "bad.npz"
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(good), 150):
        bad.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            load_dataset(DataSpec(source=str(bad)))
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


def test_a_limit_that_leaves_a_class_out_is_refused(tmp_path: Path) -> None:
    text = _sentence(DataSpec(source=str(_archive(tmp_path / "a.npz")), train_limit=2))
    assert "limited to 2 samples" in text and "labels missing from the training set" in text


def test_images_too_small_to_crop_or_pool_are_refused(tmp_path: Path) -> None:
    path = str(_archive(tmp_path / "a.npz"))
    assert "6 × 5" in _sentence(DataSpec(source=path, image="crop", size=6))
    assert "6 × 5" in _sentence(DataSpec(source=path, image="pool", size=7))
    text = _sentence(DataSpec(source="iris", image="crop", size=2))
    assert "'crop'" in text and "(120, 4)" in text


def test_a_split_without_every_class_is_refused() -> None:
    text = _sentence(DataSpec(source="digits", test_fraction=0.001))
    assert "test_fraction is 0.001" in text and "10 classes" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"source": "digit"}, "did you mean digits"),
        ({"source": "digits.csv"}, "ends in .npz"),
        ({"source": "digits", "path": "x.npz"}, "only source mnist"),
        ({"source": "digits", "image": "pool"}, "without a size"),
        ({"source": "digits", "size": 4}, "image is 'none'"),
        ({"source": "digits", "size": 0, "image": "crop"}, "greater than or equal to 1"),
        ({"source": "digits", "test_fraction": 1.0}, "less than 1"),
        ({"source": "digits", "train_limits": 3}, "Extra inputs"),
    ],
)
def test_inconsistent_specs_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DataSpec.model_validate(fields)
