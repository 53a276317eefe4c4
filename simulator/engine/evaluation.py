"""What an evaluation starts from: the held drive and the inputs; and the matrices that it computes with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import Drive
from photonloop.simulator.engine.kernel_arrays import Source


@dataclass(frozen=True)
class HeldDrive:
    """The held drive and values derived from it.

    Parameters
    ----------
    volts
        Voltages of all channels [V], shape (channels,).
    versions
        Number of changes of each stage's part of the drive so far.
    stage_v2
        Sum of the squared voltages of each stage [V²].
    power_w
        Nominal power of all heaters together [W].
    since_s
        Time on the chip's clock at which the voltages were reached [s].
    """

    volts: Drive
    versions: tuple[int, ...]
    stage_v2: tuple[float, ...]
    power_w: float
    since_s: float


@dataclass(frozen=True)
class InputBatch:
    """The inputs of one evaluation, common to all its settings.

    Parameters
    ----------
    held
        Held drive of the stages that are not read.
    name
        Name of the loaded inputs, or "" if the inputs came with the evaluation.
    source, rows
        All fields, and the rows of them that are read.
    noise_number
        Number of the evaluation, from which its noise is drawn.
    """

    held: HeldDrive
    name: str
    source: Source
    rows: NDArray[np.int64]
    noise_number: int


@dataclass(frozen=True)
class StageMatrices:
    """Transfer matrices of a stage's elements at one set of phases.

    Parameters
    ----------
    matrices
        float32 (interferometers, 8), see `kernels.coefficients`; of a weight bank (channels, 8), see
        `kernels.ring_shares`.
    screen
        Phasors of the output phase shifters, float32 (2, ports).
    """

    matrices: NDArray[np.float32]
    screen: NDArray[np.float32]
