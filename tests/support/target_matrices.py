"""Unitary matrices of different kinds, as targets of decompositions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import dft
from scipy.stats import ortho_group, unitary_group

KINDS = ("identity", "reversal", "permutation", "signed permutation", "diagonal", "blocks", "dft", "orthogonal", "haar")


def unitary(kind: str, n: int) -> NDArray[np.complex128]:
    """Return a unitary matrix of one of `KINDS`, shape (n, n)."""
    rng = np.random.default_rng(n)
    shuffled = np.eye(n)[rng.permutation(n)]
    half = n // 2
    blocks = np.zeros((n, n), np.complex128)
    blocks[:half, :half] = np.eye(half)
    blocks[half:, half:] = unitary_group.rvs(n - half, random_state=n) if n - half > 1 else 1j
    return np.asarray(
        {
            "identity": np.eye(n),
            "reversal": np.eye(n)[::-1],
            "permutation": shuffled,
            "signed permutation": shuffled * rng.choice([-1.0, 1.0], n),
            "diagonal": np.diag(np.exp(1j * rng.uniform(0, 7, n))),
            "blocks": blocks,
            "dft": dft(n, scale="sqrtn"),
            "orthogonal": ortho_group.rvs(n, random_state=n),
            "haar": unitary_group.rvs(n, random_state=n),
        }[kind],
        np.complex128,
    )
