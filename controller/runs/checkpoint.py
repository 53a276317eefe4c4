"""The checkpoint: the state of a session between two updates.

It holds no time and no host name, so two sessions with the same updates write the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.learning.optimizers import Moments
from photonloop.controller.learning.variables import Phases
from photonloop.protocols.config import ConfigError

RUN_FORMAT = 3
"""Number of the run folder's format, in the checkpoint and in the first event of a run."""


@dataclass
class Checkpoint:
    """Progress of a session.

    Parameters
    ----------
    variables
        Present variables of each layer begun so far [rad], shape (channels,).
    initial
        Variables of each layer before its first update [rad].
    base
        Variables around which the probes of the next update are made, if they are not the present ones (pipelined)
        [rad].
    moments
        Memory of the optimiser for the present layer.
    update
        Updates made in the present layer.
    total
        Updates made in all layers.
    evaluations
        Settings measured so far, each for a batch, or for samples of the training or test set.
    loss_sum, loss_count
        Sum and number of the losses of the present epoch.
    steps
        Probe step of each layer begun so far [rad].
    finished
        True once all layers are trained.
    """

    variables: list[Phases] = field(default_factory=list)
    initial: list[Phases] = field(default_factory=list)
    base: Phases | None = None
    moments: Moments | None = None
    update: int = 0
    total: int = 0
    evaluations: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    steps: list[float] = field(default_factory=list)
    finished: bool = False


_COUNTS = ("update", "total", "evaluations", "loss_sum", "loss_count", "steps", "finished")


def to_arrays(state: Checkpoint, seed: int) -> dict[str, NDArray[Any]]:
    """Return `state` as the named arrays of a checkpoint file."""
    arrays: dict[str, NDArray[Any]] = {}
    for number, (now, before) in enumerate(zip(state.variables, state.initial, strict=True)):
        arrays[f"variables_{number}"] = now
        arrays[f"initial_{number}"] = before
    meta = {"format": RUN_FORMAT, "seed": seed, **{name: getattr(state, name) for name in _COUNTS}}
    if state.base is not None:
        arrays["base"] = state.base
    if state.moments is not None:
        arrays["first"], arrays["second"] = state.moments.first, state.moments.second
        meta["moment_updates"] = state.moments.updates
    arrays["meta"] = np.array(json.dumps(meta))
    return arrays


def from_arrays(arrays: dict[str, NDArray[Any]], seed: int, name: str) -> Checkpoint:
    """Return the state in `arrays`, or a fresh one if there are none.

    Parameters
    ----------
    arrays
        The arrays of a checkpoint file.
    seed
        The seed of the run.
    name
        Name of the checkpoint in errors.

    Raises
    ------
    ConfigError
        The arrays are not a checkpoint of this format and seed.
    """
    if not arrays:
        return Checkpoint()
    try:
        meta = json.loads(str(arrays["meta"]))
        if meta["format"] != RUN_FORMAT:
            raise ConfigError(f"{name} has run format {meta['format']}, but this version reads {RUN_FORMAT}: start a new run")
        if meta["seed"] != seed:
            raise ConfigError(f"{name} has seed {meta['seed']}, but the run has seed {seed}: put back a copy of it")
        layers = len(meta["steps"])
        state = Checkpoint(
            variables=[_phases(arrays[f"variables_{k}"]) for k in range(layers)],
            initial=[_phases(arrays[f"initial_{k}"]) for k in range(layers)],
            **{key: meta[key] for key in _COUNTS},
        )
        if "base" in arrays:
            state.base = _phases(arrays["base"])
        if "moment_updates" in meta:
            state.moments = Moments(meta["moment_updates"], _phases(arrays["first"]), _phases(arrays["second"]))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{name} is damaged ({error}): put back a copy of it, or start a new run") from None
    return state


def _phases(array: NDArray[Any]) -> Phases:
    if array.ndim != 1 or array.dtype != np.float64 or not np.isfinite(array).all():
        raise ValueError(f"an array of type {array.dtype} and shape {array.shape} does not contain phases")
    return array.copy()
