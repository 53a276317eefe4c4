"""What a session knows at a step boundary, and nothing else: the checkpoint.

No clock, no host name: two sessions that learned the same hold equal states, and equal states give equal bytes.
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

FORMAT = 1


@dataclass
class Checkpoint:
    """Progress of a session.

    Parameters
    ----------
    variables
        Present variables of each layer begun so far [rad], shape (channels,).
    initial
        What they were before the first update.
    base
        Variables that the probes of the next update are centred on, where that is not the present ones (pipelined).
    moments
        Memory of the optimiser for the layer being learned.
    update
        Updates made in that layer.
    total
        Updates made in all layers.
    evaluations
        Settings measured to get here, each over one batch or one portion of a part.
    loss_sum, loss_count
        Of the epoch under way.
    steps
        Probe step of each layer begun so far [rad].
    finished
        True once the last layer is learned.
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
    """Return `state` as named arrays, as they stand in the checkpoint."""
    arrays: dict[str, NDArray[Any]] = {}
    for number, (now, before) in enumerate(zip(state.variables, state.initial, strict=True)):
        arrays[f"variables_{number}"] = now
        arrays[f"initial_{number}"] = before
    meta = {"format": FORMAT, "seed": seed, **{name: getattr(state, name) for name in _COUNTS}}
    if state.base is not None:
        arrays["base"] = state.base
    if state.moments is not None:
        arrays["first"], arrays["second"] = state.moments.first, state.moments.second
        meta["moment_updates"] = state.moments.updates
    arrays["meta"] = np.array(json.dumps(meta))
    return arrays


def from_arrays(arrays: dict[str, NDArray[Any]], seed: int, where: str) -> Checkpoint:
    """Return the state in `arrays`; a fresh one where they are empty. `where` names the checkpoint in errors.

    Raises
    ------
    ConfigError
        The arrays are not a checkpoint of this format and seed.
    """
    if not arrays:
        return Checkpoint()
    try:
        meta = json.loads(str(arrays["meta"]))
        found = (meta["format"], meta["seed"])
        if found != (FORMAT, seed):
            raise ConfigError(f"{where} has format {found[0]} and seed {found[1]}, but the run wants {FORMAT} and {seed}")
        layers = len(meta["steps"])
        state = Checkpoint(
            variables=[_phases(arrays[f"variables_{k}"]) for k in range(layers)],
            initial=[_phases(arrays[f"initial_{k}"]) for k in range(layers)],
            **{name: meta[name] for name in _COUNTS},
        )
        if "base" in arrays:
            state.base = _phases(arrays["base"])
        if "moment_updates" in meta:
            state.moments = Moments(meta["moment_updates"], _phases(arrays["first"]), _phases(arrays["second"]))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where} is damaged ({error}): put back a copy of it, or start a new run") from None
    return state


def _phases(array: NDArray[Any]) -> Phases:
    if array.ndim != 1 or array.dtype != np.float64 or not np.isfinite(array).all():
        raise ValueError(f"an array of type {array.dtype} and shape {array.shape} is no set of phases")
    return array.copy()
