"""Arrays in the layout of the kernels: blocks of samples, reading plans, temporary arrays, read-only views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator import kernels
from photonloop.simulator.engine.heat_map import heat_scratch
from photonloop.simulator.engine.stage import Stage

Source = NDArray[np.float32]
"""Fields, shape (rows, ports, 1) if real, or (rows, ports, 2) with real and imaginary parts."""


def scaled(blocks: NDArray[np.float32], factors: NDArray[np.complex128]) -> NDArray[np.float32]:
    """Return `blocks` times the factors of the ports, (sets, ports): all blocks of the first set, then the second, …"""
    parts = factors.astype(np.complex64).view(np.float32).reshape(*factors.shape, 2)
    out = np.empty((factors.shape[0] * blocks.shape[0], *blocks.shape[1:]), np.float32)
    kernels.scale_ports(blocks, parts, out)
    return out


def gathered(source: Source, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return rows of `source` as blocks for the kernels."""
    blocks = np.empty((-(-rows.size // kernels.LANES), source.shape[1], 2, kernels.LANES), np.float32)
    kernels.gather(read_only(source), read_only(rows), blocks)
    return blocks


def reading_plan(
    block: NDArray[np.int64] | Sequence[int],
    matrix_set: NDArray[np.int64] | Sequence[int],
    setting: NDArray[np.int64] | int,
    first: NDArray[np.int64] | Sequence[int],
    samples: int,
) -> NDArray[np.int64]:
    """Return a plan for `kernels.read_prepared`, for blocks of a setting of `samples` samples.

    The last column, the number of the noise, is left to the caller.
    """
    plan = np.empty((len(block), 6), np.int64)
    for column, values in enumerate((block, matrix_set, setting, first)):
        plan[:, column] = values
    plan[:, 4] = np.minimum(kernels.LANES, samples - plan[:, 3])
    return plan


def new_scratch(stage: Stage) -> kernels.Scratch:
    """Return temporary arrays for one worker, of the size of `stage`."""
    ports, outputs = stage.description.ports, stage.description.tap_ports
    for_rin = 2 if stage.rings is None else ports + ports % 2
    longest = int(np.diff(stage.heaters.chunks).max())
    return kernels.Scratch(
        power=np.empty(stage.description.channels),
        heat=heat_scratch(stage.heaters.heat, stage.description.channels),
        phasor=np.empty((2, stage.description.channels), np.float32),
        matrices=np.empty((stage.elements, 8), np.float32),
        field=np.empty((ports, 2, kernels.LANES), np.float32),
        noise=np.empty((outputs + outputs % 2 + for_rin, kernels.LANES), np.float32),
        current=np.empty(outputs * kernels.LANES, np.float32),
        source=np.empty((2 * -(-longest // (2 * kernels.LANES)), kernels.LANES), np.float32),
    )


def read_only(array: NDArray) -> NDArray:
    """Return a read-only view, so that a kernel is compiled for one array type only."""
    view = array.view()
    view.flags.writeable = False
    return view
