"""Sources of labelled data: scikit-learn's digits and iris, MNIST, and .npz archives.

Each function returns the arrays of the source unchanged. Only what is needed to read the file is checked.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from photonloop.controller.data.data_checks import Array, DataError, RawData
from photonloop.controller.runs.npz_files import DAMAGED

_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")


def read_digits() -> tuple[Array, Array]:
    """Return scikit-learn's handwritten digits: images (1797, 8, 8) and labels (1797,)."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  importing scikit-learn takes most of a second

    digits: Any = load_digits()
    return digits.images, digits.target


def read_iris() -> tuple[Array, Array]:
    """Return scikit-learn's iris data: features (150, 4) and species names (150,)."""
    from sklearn.datasets import load_iris  # noqa: PLC0415

    iris: Any = load_iris()
    return iris.data, np.asarray(iris.target_names)[iris.target]


def read_npz(path: Path) -> RawData:
    """Return the arrays x_train, y_train, x_test, y_test of an .npz archive.

    Raises
    ------
    DataError
        The file is missing, unreadable or damaged, lacks an array, or contains pickled objects.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} contains a single array, expected an .npz archive with {', '.join(_NPZ_KEYS)}")
            missing = [key for key in _NPZ_KEYS if key not in archive.files]
            if missing:
                there = ", ".join(archive.files) or "nothing"
                raise DataError(f"{path} lacks {', '.join(missing)}: it contains {there}")
            return RawData(*(_member(archive, key, path) for key in _NPZ_KEYS))
    except DataError:
        raise
    except PermissionError:
        raise DataError(f"{path} cannot be read: permission denied") from None
    except DAMAGED:
        raise DataError(f"{path} cannot be read as an .npz archive: it is damaged or has another format") from None


def _member(archive: Any, key: str, path: Path) -> Array:
    try:
        return archive[key]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{key} in {path} contains pickled Python objects, which are never loaded: save plain numbers"
            ) from None
        raise


def download_mnist() -> RawData:
    """Return MNIST from OpenML: 60 000 training and 10 000 test images of 28 × 28 pixels.

    The arrays are kept as an .npz file in scikit-learn's data folder, because parsing OpenML's format is slow.

    Raises
    ------
    DataError
        The download failed.
    """
    from sklearn.datasets import fetch_openml, get_data_home  # noqa: PLC0415

    try:
        kept = Path(get_data_home()) / "photonloop-mnist.npz"
        if kept.is_file():
            return read_npz(kept)
        # The other parser needs pandas, which photonloop does not depend on.
        table: Any = fetch_openml("mnist_784", version=1, as_frame=False, parser="liac-arff", n_retries=1, delay=0.5)
        x = np.asarray(table.data).astype(np.uint8).reshape(-1, 28, 28)
        y = np.asarray(table.target).astype(np.int64)
        with tempfile.TemporaryDirectory(dir=kept.parent) as aside:
            np.savez_compressed(Path(aside) / kept.name, x_train=x[:60000], y_train=y[:60000], x_test=x[60000:], y_test=y[60000:])
            (Path(aside) / kept.name).replace(kept)
        return RawData(x[:60000], y[:60000], x[60000:], y[60000:])
    except DataError:
        raise
    except (OSError, ValueError) as error:
        # URLError is an OSError. ValueError: OpenML returned something else, or a truncated file.
        raise DataError(
            f"mnist could not be downloaded ({_one_line(error)}): connect to a network, or set data.path or $PHOTONLOOP_DATA, "
            "a folder that contains mnist.npz"
        ) from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
