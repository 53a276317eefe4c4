"""Optimisers: gradient descent, momentum and Adam, with a learning-rate schedule.

One function implements all three. Their state, two moments, is stored in a checkpoint as plain arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from photonloop.controller.experiment import OptimizerSpec
from photonloop.controller.learning.variables import Phases


@dataclass
class Moments:
    """State of an optimiser between updates.

    Parameters
    ----------
    updates
        Updates made so far.
    first, second
        Running means of the direction (velocity for `momentum`) and of its square, shape (channels,).
    """

    updates: int
    first: Phases
    second: Phases


def fresh_moments(channels: int) -> Moments:
    """Return the state of an optimiser before its first update."""
    return Moments(updates=0, first=np.zeros(channels), second=np.zeros(channels))


def learning_rate(spec: OptimizerSpec, update: int, updates: int) -> float:
    """Return the learning rate of update number `update` (from 0) out of `updates`."""
    if spec.schedule == "constant":
        return spec.rate
    return spec.rate * 0.5 * (1 + math.cos(math.pi * update / updates))


def descend(spec: OptimizerSpec, moments: Moments, direction: Phases, rate: float) -> Phases:
    """Return the change of the variables [rad], shape (channels,), and advance `moments` in place by one update.

    `sgd`: −η·g. `momentum`: v ← μ·v + g, −η·v (Polyak). `adam`: Kingma & Ba 2015, algorithm 1, with bias correction.
    """
    moments.updates += 1
    if spec.name == "sgd":
        return -rate * direction
    if spec.name == "momentum":
        moments.first *= spec.momentum
        moments.first += direction
        return -rate * moments.first
    moments.first += (1 - spec.beta1) * (direction - moments.first)
    moments.second += (1 - spec.beta2) * (direction * direction - moments.second)
    correction1 = 1 - spec.beta1**moments.updates
    correction2 = 1 - spec.beta2**moments.updates
    return (-rate / correction1) * moments.first / (np.sqrt(moments.second / correction2) + spec.epsilon)
