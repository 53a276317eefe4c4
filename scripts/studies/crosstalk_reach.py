"""Phases that thermal crosstalk of a limited reach neglects, for uniformly random settings.

    python scripts/studies/crosstalk_reach.py [--json] [--quick] [--chip soi] [--ports 64] [--reference-mm 3]

For each reach, the heat between it and the reference reach is left out. It changes the effective phases θ and φ of the
interferometers (`photonloop.simulator.physics.running_phase`) in two ways. Differential part: the difference of the
interferometer's own two arms. Common part: what the running phases of earlier columns add to φ. All values are rms over
interferometers and settings, in rad. `total` is over all θ and φ. `varying` is the same without the mean over settings,
which acts like fixed phase offsets. Shares are exact, by Fourier transforms over the lattice.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import CrosstalkParameters, load_chip
from photonloop.simulator.physics.crosstalk import Segments, mesh_segments, share_at
from photonloop.simulator.physics.mesh import TOPOLOGIES, Mesh, columns
from photonloop.simulator.physics.running_phase import effective_phases

REACHES_MM = (0.1, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 2.5, 2.8, 3.0)


def received(segments: Segments, crosstalk: CrosstalkParameters, reference_m: float, power: NDArray) -> NDArray[np.float64]:
    """Return what heaters between the reach and `reference_m` give to segments, (settings, half columns, modes)."""
    x, y = (np.arange(2 * size - 1) - (size - 1) for size in segments.size)
    distance_m = np.hypot(x[:, np.newaxis] * segments.half_column_m, y * segments.mode_m)
    share = share_at(distance_m, crosstalk.model_copy(update={"reach_m": reference_m})) - share_at(distance_m, crosstalk)
    shape = [3 * size - 2 for size in segments.size]
    at_heaters = np.zeros((len(power), *segments.size))
    at_heaters[:, segments.heaters[:, 0], segments.heaters[:, 1]] = power
    product = np.fft.rfft2(at_heaters, shape) * np.fft.rfft2(share, shape)
    first = [size - 1 for size in segments.size]
    whole = np.fft.irfft2(product, shape)
    return whole[:, first[0] : first[0] + segments.size[0], first[1] : first[1] + segments.size[1]]


def neglected(mesh: Mesh, segments: Segments, heat_rad: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
    """Return θ, the differential part of φ and its common part, for phases of all segments; one row per setting."""
    n = mesh.interferometers
    top, order = np.empty(n, np.int64), np.empty(n, np.int64)
    for column in columns(mesh):
        top[mesh.phi[column.pairs]], order[mesh.phi[column.pairs]] = mesh.top[column.pairs], mesh.column[column.pairs]
    rows = []
    for each in heat_rad:
        effective = effective_phases(mesh, each[segments.heaters[:, 0], segments.heaters[:, 1]], each.ravel())
        own = each[2 * order, top] - each[2 * order, top + 1]
        rows.append((effective[:n], own, effective[n : 2 * n] - own))
    theta, own, common = (np.array(part) for part in zip(*rows, strict=True))
    return theta, own, common


def study(chip: str, ports: int, reference_mm: float, settings: int, reaches_mm: tuple[float, ...]) -> list[dict[str, float]]:
    """Return one row per reach."""
    parameters = load_chip(chip, ports=ports)
    own = parameters.crosstalk
    mesh = TOPOLOGIES[parameters.mesh.topology](ports)
    segments = mesh_segments(mesh, own)
    # Phases in proportion to the power: half turns times π. Curvature changes them by about a per cent.
    settings_rad = np.random.default_rng(0).uniform(0.0, 2.0 * np.pi, (settings, mesh.channels))
    rows = []
    for reach_mm in reaches_mm:
        limited = own.model_copy(update={"reach_m": 1e-3 * reach_mm})
        parts = neglected(mesh, segments, received(segments, limited, 1e-3 * reference_mm, settings_rad))
        theta, differential, common = parts
        total = np.concatenate((theta, differential + common), axis=1)
        varying = total - total.mean(axis=0)
        named = (theta, differential, common, total, varying * np.sqrt(settings / (settings - 1)))
        names = ("theta", "phi_differential", "phi_common", "total", "varying")
        rms = {name: float(np.sqrt(np.mean(part**2))) for name, part in zip(names, named, strict=True)}
        rows.append({"reach_mm": reach_mm, **rms})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="three reaches, two settings, 16 ports")
    parser.add_argument("--chip", default="soi", help="preset or chip file (%(default)s)")
    parser.add_argument("--ports", type=int, default=64)
    parser.add_argument("--reference-mm", type=float, default=3.0, help="reach that is compared with [mm] (%(default)s)")
    parser.add_argument("--settings", type=int, default=8, help="random settings (%(default)s)")
    args = parser.parse_args()
    ports, settings, reaches_mm = (16, 2, (0.15, 0.6, 1.5)) if args.quick else (args.ports, args.settings, REACHES_MM)
    rows = study(args.chip, ports, args.reference_mm, settings, reaches_mm)
    if args.json:
        print(json.dumps({"chip": args.chip, "ports": ports, "reference_mm": args.reference_mm, "rows": rows}))
        return 0
    print("reach mm     θ rad   φ own arms   φ running     total   varying")
    for row in rows:
        print(
            f"{row['reach_mm']:8.2f}  {row['theta']:8.4f}  {row['phi_differential']:10.4f}  {row['phi_common']:10.4f}"
            f"  {row['total']:8.4f}  {row['varying']:8.4f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
