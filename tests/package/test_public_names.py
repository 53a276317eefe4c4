"""The public names of the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import photonloop as pl


@pytest.mark.parametrize("name", pl.__all__)
def test_every_public_name_is_found_and_documented(name: str) -> None:
    assert getattr(pl, name).__name__ == name
    assert getattr(pl, name).__doc__
    assert name in dir(pl)


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "calibrat"
    with pytest.raises(AttributeError, match="no attribute 'calibrat'"):
        getattr(pl, name)


def test_importing_the_package_imports_no_large_package() -> None:
    code = "import sys, photonloop; print([n for n in ('numpy', 'scipy', 'numba', 'zmq', 'pydantic') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
