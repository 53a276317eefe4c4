"""Tables of thermal crosstalk in the layout of the kernels (`kernels.HeatMap`), from the positions of all segments.

Along the direction of light a mesh repeats itself, so most of its rows have the same near shares. They share one list.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator import kernels
from photonloop.simulator.parameters import CrosstalkParameters
from photonloop.simulator.physics import crosstalk as physics
from photonloop.simulator.physics import far_heat
from photonloop.simulator.physics.mesh import Mesh
from photonloop.simulator.physics.mesh import columns as mesh_columns

_UNROLLED = 4
"""The number of near shares of a row is a multiple of this."""


class _Frame(NamedTuple):
    """Cells of the map: rows per half column, cells per row, distance of rows, cells before the first row."""

    interleave: int
    width: int
    stride: int
    lead: int

    def cell(self, x: NDArray[np.int64] | int, y: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Return the cells of half column `x`, mode `y` in the map of powers."""
        return np.asarray(self.lead + (x * self.interleave + y % self.interleave) * self.stride + y // self.interleave)

    def received(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cells of half column `x`, mode `y` in the received powers."""
        return (x * self.interleave + y % self.interleave) * self.width + y // self.interleave


def no_heat_map() -> kernels.HeatMap:
    """Return the tables of a stage without thermal crosstalk."""
    integers, numbers = np.empty(0, np.int64), np.empty(0, np.float32)
    return kernels.HeatMap(
        interleave=1, width=kernels.LANES, sources=np.empty((0, 5), np.int64), rows=np.empty((0, 5), np.int64),
        near_cell=integers, near_share=numbers, feeds=np.empty((0, 2), np.int64), feed_bounds=integers, nodes=(0, 0), padded=0,
        gather=numbers, gather_span=np.empty((0, 0, 2), np.int64), along=np.empty((0, 0), np.float32),
        along_span=np.empty((0, 2), np.int64), back=np.empty((0, 4), np.float32), back_first=integers, spread=numbers,
        spread_span=np.empty((0, 0, 2), np.int64), far_share=numbers, far_reach=(0, 0), columns=np.empty((0, 6), np.int64),
        unheated=0.0,
    )  # fmt: skip


def heat_map(
    segments: physics.Segments, mesh: Mesh | None, crosstalk: CrosstalkParameters, unheated_rad_per_w: float
) -> kernels.HeatMap:
    """Return the tables of a stage, or `no_heat_map` if it has no thermal crosstalk. A weight bank has no mesh."""
    split = far_heat.split_of(segments.half_column_m, segments.mode_m, crosstalk)
    shifts = (0.0, 0.5) if segments.others.size else (0.0,)
    near = {shift: physics.near_offsets(segments, crosstalk, split, shift) for shift in shifts}
    if crosstalk.fraction == 0.0 or (split is None and not any(share.size for _, share in near.values())):
        return no_heat_map()
    interleave = 1 if mesh is None else 2
    width = -(-segments.size[1] // (interleave * kernels.LANES)) * kernels.LANES
    across = max((int(np.abs(offsets[:, 1]).max(initial=0.0)) for offsets, _ in near.values()), default=0)
    gap = across // interleave + 2
    gap = -(-gap // kernels.LANES) * kernels.LANES
    frame = _Frame(interleave, width, width + gap, gap)
    places = _row_places(segments, interleave)
    rows, near_cell, near_share = _near_tables(segments, frame, near, places)
    return no_heat_map()._replace(
        interleave=interleave,
        width=width,
        sources=_sources(segments, frame),
        rows=rows,
        near_cell=near_cell,
        near_share=near_share,
        columns=np.empty((0, 6), np.int64) if mesh is None else _columns(mesh, segments.size[0] * interleave),
        unheated=unheated_rad_per_w / np.pi,
        **({} if split is None else _far_tables(segments, frame, physics.far_heat_of(segments, split, crosstalk), places)),
    )


def heat_scratch(heat: kernels.HeatMap, channels: int) -> kernels.HeatScratch:
    """Return temporary arrays for the thermal crosstalk of one setting, all zero."""
    nodes, padded, rows = heat.nodes[0], heat.padded, heat.rows.shape[0]
    cells = int(heat.rows[:, 1].max()) + heat.width if rows else 0
    sizes = {
        # Near shares reach into the space behind the last row.
        "power": cells + int(np.abs(heat.near_cell).max(initial=0)) + 2 * kernels.LANES if rows else 0,
        "halves": max(heat.feed_bounds.size - 1, 0) * padded,
        "nodes": (nodes + 2 * heat.far_reach[0]) * padded,
        "far": nodes * padded,
        "across": padded + kernels.LANES,
        "segments": rows * heat.width,
        "received": channels if rows else 0,
        "pushed": channels if rows else 0,
    }
    arrays = {name: _aligned(np.zeros(size, np.float32)) for name, size in sizes.items()}
    return kernels.HeatScratch(**arrays, running=np.zeros(heat.interleave * heat.width))


def _aligned(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a flat copy at the start of a cache line, from which a register of lanes is loaded in one access."""
    line = np.empty(array.size + kernels.LANES, np.float32)
    start = -line.ctypes.data % (4 * kernels.LANES) // 4
    copy = line[start : start + array.size]
    copy[:] = array.ravel()
    return copy


def _row_places(segments: physics.Segments, interleave: int) -> NDArray[np.float64]:
    """Return half column and mode of the first cell of every row that receives, (rows, 2)."""
    x, first = np.divmod(np.arange(segments.size[0] * interleave), interleave)
    rows = np.stack((x, first), axis=1).astype(np.float64)
    if not segments.others.size:
        return rows
    at = segments.others[0, 0]
    return np.concatenate((rows, [[at, 0.5], [at, 1.5]]))


def _sources(segments: physics.Segments, frame: _Frame) -> NDArray[np.int64]:
    """Return runs of heaters with consecutive cells and equidistant channels, see `kernels.HeatMap`."""
    x, y = segments.heaters.T
    order = np.lexsort((y, y % frame.interleave, x))
    cell, received = frame.cell(x, y)[order], frame.received(x, y)[order]
    step = np.diff(order)
    same = (np.diff(cell) == 1) & (np.diff(received) == 1)
    runs, first = [], 0
    while first < order.size:
        stop = first + 1
        while stop < order.size and same[stop - 1] and step[stop - 1] == step[first]:
            stop += 1
        runs.append((order[first], step[first] if stop > first + 1 else 1, stop - first, cell[first], received[first]))
        first = stop
    return np.array(runs, np.int64).reshape(-1, 5)


def _near_tables(
    segments: physics.Segments,
    frame: _Frame,
    near: dict[float, tuple[NDArray[np.float64], NDArray[np.float64]]],
    places: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows that receive, and distances in the map and shares of their near parts."""
    heated = np.zeros((segments.size[0], frame.interleave), np.bool_)
    heated[segments.heaters[:, 0], segments.heaters[:, 1] % frame.interleave] = True
    rows = np.empty((places.shape[0], 5), np.int64)
    lists: dict[tuple[float, bytes], tuple[int, int]] = {}
    cells: list[NDArray[np.int64]] = []
    shares: list[NDArray[np.float64]] = []
    count = 0
    for row, (place_x, first) in enumerate(places.tolist()):
        offsets, share = near[first % 1.0]
        x = np.rint(place_x + offsets[:, 0]).astype(np.int64)
        y = np.rint(first + offsets[:, 1]).astype(np.int64)
        inside = (x >= 0) & (x < segments.size[0])
        used = inside & heated[x.clip(0, segments.size[0] - 1), y % frame.interleave]
        at = int(frame.cell(int(place_x), int(first)))
        key = (first, used.tobytes())
        if key not in lists:
            apart = frame.cell(x[used], y[used]) - at
            spare = -apart.size % _UNROLLED
            cells.append(np.concatenate((apart, np.zeros(spare, np.int64))))
            shares.append(np.concatenate((share[used], np.zeros(spare))))
            lists[key] = (count, count + apart.size + spare)
            count = lists[key][1]
        rows[row] = int(place_x), at, *lists[key], _weight_set(first)
    return rows, np.concatenate(cells), np.concatenate(shares).astype(np.float32)


def _weight_set(first: float) -> int:
    """Return the number of the weights for a row whose first cell is at mode `first`: 0, 1, 0.5 or 1.5."""
    return int(first) + (2 if first % 1.0 else 0)


def _far_tables(
    segments: physics.Segments, frame: _Frame, far: far_heat.FarHeat, places: NDArray[np.float64]
) -> dict[str, object]:
    """Return the tables of the coarse grid, see `kernels.HeatMap`."""
    (nodes_x, nodes_y), (step_x, step_y) = far.nodes, far.split.step
    padded = -(-nodes_y // kernels.LANES) * kernels.LANES
    firsts = (0.0, 1.0, 0.5, 1.5) if segments.others.size else tuple(float(k) for k in range(frame.interleave))
    modes = [(first + frame.interleave * np.arange(frame.width)).astype(np.float64) for first in firsts]
    weights = np.stack([far_heat.node_weights(mode, step_y, padded) for mode in modes])
    weights[:, :, nodes_y:] = 0.0
    along = far_heat.node_weights(np.arange(segments.size[0], dtype=np.float64), step_x, nodes_x)
    back_first = np.argmax(along != 0.0, axis=1).clip(0, nodes_x - 4)
    span = _spans(along.T)
    longest = int((span[:, 1] - span[:, 0]).max())
    gathered = np.zeros((nodes_x, longest), np.float32)
    for node, (low, high) in enumerate(span.tolist()):
        gathered[node, : high - low] = along[low:high, node]
    feeds, feed_bounds = _feeds(segments, frame)
    farthest = tuple(int(np.flatnonzero(far.share.any(axis=1 - axis)).max()) for axis in (0, 1))
    blocks = np.asarray(weights.reshape(len(firsts), frame.width, -1, kernels.LANES).any(axis=3))
    cells = weights.transpose(0, 2, 1)[:, :nodes_y]
    return {
        "feeds": feeds,
        "feed_bounds": feed_bounds,
        "nodes": far.nodes,
        "padded": padded,
        "gather": _aligned(weights.astype(np.float32)),
        "gather_span": np.stack([_spans(blocks[number].T, even=True) for number in range(len(firsts))]),
        "along": gathered,
        "along_span": span,
        "back": np.take_along_axis(along, back_first[:, np.newaxis] + np.arange(4), axis=1).astype(np.float32),
        "back_first": back_first.astype(np.int64),
        "spread": _aligned(np.pad(cells, ((0, 0), (0, 1), (0, 0))).astype(np.float32)),
        "spread_span": np.stack([_spans(np.asarray(cell.reshape(nodes_y, -1, kernels.LANES).any(axis=2)).T) for cell in cells]),
        "far_share": _far_shares(far, padded, farthest[0]),
        "far_reach": farthest,
    }


def _feeds(segments: physics.Segments, frame: _Frame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows with heaters, (rows, 2), and the bounds of each half column's."""
    rows = np.unique(np.stack((segments.heaters[:, 0], segments.heaters[:, 1] % frame.interleave), axis=1), axis=0)
    bounds = np.searchsorted(rows[:, 0], np.arange(segments.size[0] + 1))
    return np.stack((frame.cell(rows[:, 0], rows[:, 1]), rows[:, 1]), axis=1), bounds.astype(np.int64)


def _far_shares(far: far_heat.FarHeat, padded: int, farthest: int) -> NDArray[np.float32]:
    """Return the smooth shares as in `kernels.HeatMap.far_share`."""
    distance = np.abs(np.subtract.outer(np.arange(-padded, padded), np.arange(kernels.LANES)))
    inside = distance < far.nodes[1]
    shares = np.where(inside, far.share[: farthest + 1, np.where(inside, distance, 0)], 0.0)
    return _aligned(shares.astype(np.float32))


def _spans(used: NDArray[np.bool_] | NDArray[np.float64], *, even: bool = False) -> NDArray[np.int64]:
    """Return the first and one past the last entry of each row that is not 0, (rows, 2). `even`: of even length."""
    found = np.zeros((used.shape[0], 2), np.int64)
    for row, values in enumerate(used):
        entries = np.flatnonzero(values)
        if entries.size:
            found[row] = entries[0], entries[-1] + 1
            if even and (entries[-1] + 1 - entries[0]) % 2:
                found[row] += (-1, 0) if entries[0] > 0 else (0, 1)
    return found


def _columns(mesh: Mesh, lattice_rows: int) -> NDArray[np.int64]:
    """Return the columns of a mesh as in `kernels.HeatMap`; the interferometers of a column follow each other."""
    found = []
    for column in mesh_columns(mesh):
        here = np.concatenate((column.pairs, column.alone))
        alone = int(column.alone.size > 0)
        apart = 1 if alone else 2
        theta, phi, top = mesh.theta[here], mesh.interferometers + mesh.phi[here], mesh.top[here]
        assert (np.diff(theta) == 1).all() and (np.diff(phi) == 1).all() and (np.diff(top) == apart).all()
        found.append((theta[0], phi[0], here.size, top[0], alone, lattice_rows))
    return np.array(found, np.int64)
