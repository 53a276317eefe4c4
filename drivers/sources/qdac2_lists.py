"""The QDAC-II stepping through a list of settings.

All channels of the list take the next step at every internal trigger 2.

A trigger is not absolute, so every step is read back: VOLT:LAST? returns the output of a channel in any mode, VOLT? the
setpoint of fixed mode. A channel counts as stepped only after the instrument has confirmed its output. If the answer is
lost, the step is set as voltages, which ends the list. If an output is at another voltage, lists are not used again
until the instrument is reopened.

Not checked against a real unit: that an output does not move when a list is loaded, until a trigger; that VOLT:LAST?
follows a step within a few round trips. If either does not hold, the driver logs it and sets voltages instead. A list
is at most 3000 characters.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.helpers import scpi
from photonloop.drivers.helpers.channel_checks import check_channels, check_volts
from photonloop.drivers.sources.qdac2_commands import channel_list
from photonloop.drivers.sources.qdac2_source import ERROR_QUERY, MAX_SLEW_V_PER_S, Qdac2, parse_volts_and_error
from photonloop.drivers.transports.interfaces import Transport
from photonloop.protocols.errors import DeviceError

log = logging.getLogger(__name__)

OUTPUT_POLLS = 200
"""Round trips within which outputs must reach a step, the instrument's own slew included."""

_STEP_TOLERANCE_V = 2e-5
"""Tolerance of a step, below the distance of neighbouring steps."""
_CHARACTERS_PER_LIST = 3000
_CHARACTERS_PER_VALUE = 12
_TRIGGER = 2
_DWELL_S = 1e-5
"""Duration of a step in the instrument; it is over long before the next trigger."""


@dataclass
class _LoadedList:
    """A list as it was loaded: its steps, shape (steps, channels) [V], and the outputs before the first step [V]."""

    channels: list[int]
    steps: NDArray[np.float64]
    before: NDArray[np.float64]
    position: int = -1
    """Step at which the outputs are; -1 before the first one."""


class Qdac2WithLists(Qdac2):
    """A `Qdac2` that also is a `StepsThroughList`. Made by `open_qdac2`."""

    def __init__(self, transport: Transport, range_v: float, held: NDArray[np.float64]) -> None:
        super().__init__(transport, range_v, held)
        self._list: _LoadedList | None = None
        self._lists_work = True

    def read_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return setpoints [V], shape (channels,), in one exchange; outputs if a channel of the list is among them."""
        if set(channels).isdisjoint(self._listed_channels()):
            return super().read_volts(channels)
        check_channels(self._transport.name, channels, self.channels)
        return self._read_outputs(channels)

    def check(self) -> None:
        """Raise errors in the queue; compare setpoints with those set last, and outputs with the step of the list."""
        super().check()
        if listed := self._listed_channels():
            self._compare(listed, self._read_outputs(listed), self._expected_outputs(listed))

    def safe(self) -> None:
        """Set every channel to 0 V, which ends the list."""
        self._list = None
        super().safe()

    def load_steps(self, channels: Sequence[int], volts: NDArray[np.float64]) -> int:
        """Load a list in one message, which may be repeated because it sets everything anew; see `StepsThroughList`."""
        if volts.ndim != 2 or volts.shape[1] != len(channels) or not volts.size:
            raise DeviceError("bad_request", f"volts has shape {volts.shape}, expected (steps, {len(channels)}), both at least 1")
        for step in volts:
            check_volts(self._transport.name, dict(zip(channels, step.tolist(), strict=True)), self._limits)
        listed = self._listed_channels()
        if not self._lists_work or (self._maybe_in_list_mode - set(listed)) & set(channels):
            return 0
        if listed and listed != list(channels):
            self._set(dict(zip(listed, self._expected_outputs(listed).tolist(), strict=True)))
        before = self._expected_outputs(channels)
        slews = any(self._limits[channel].slew_v_per_s < MAX_SLEW_V_PER_S for channel in channels)
        if slews and not self._wait_for_outputs(channels, before, self._read_outputs(channels)):
            return 0  # the outputs are still moving to the last setpoints: a list would stop them on the way
        count = min(len(volts), max(1, _CHARACTERS_PER_LIST // (_CHARACTERS_PER_VALUE * len(channels))))
        self._list = _LoadedList(list(channels), volts[:count].copy(), before)
        self._maybe_in_list_mode.update(channels)
        if self._send_and_confirm(self._list, _load_commands(self._list), before, retries=None):
            return count
        self._set(dict(zip(channels, before.tolist(), strict=True)))
        return 0

    def go_to_step(self, step: int) -> None:
        """Bring all channels of the list to `step`; see `StepsThroughList`. A trigger is never repeated."""
        loaded = self._list
        if loaded is None or not 0 <= step < len(loaded.steps):
            raise DeviceError("bad_request", f"{self._transport.name} has no list with a step {step}")
        target = loaded.steps[step]
        volts = dict(zip(loaded.channels, target.tolist(), strict=True))
        if not self._listed_channels() or step != loaded.position + 1:
            self._set(volts)
            return
        try:
            confirmed = self._send_and_confirm(loaded, [f"tint {_TRIGGER}"], target, retries=0)
        except DeviceError as error:
            if error.code != "transport":
                raise
            confirmed = False
        if confirmed:
            loaded.position = step
        else:
            self._set(volts)  # absolute, so it does not matter whether the trigger arrived

    def _set(self, volts: Mapping[int, float]) -> None:
        """Set channels. The first channel of the list that is set ends it; its other channels keep their outputs."""
        listed = self._listed_channels()
        if not set(volts).isdisjoint(listed):
            volts = dict(zip(listed, self._expected_outputs(listed).tolist(), strict=True)) | dict(volts)
        super()._set(volts)

    def _adopt_setpoints(self) -> None:
        self._list = None
        super()._adopt_setpoints()

    def _listed_channels(self) -> list[int]:
        """Return the channels of the list, none if it has ended."""
        if self._list is None or not self._maybe_in_list_mode.issuperset(self._list.channels):
            return []
        return self._list.channels

    def _expected_outputs(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return the outputs of channels as far as this driver knows [V], shape (channels,)."""
        outputs = self._held.copy()
        if (loaded := self._list) is not None and self._listed_channels():
            outputs[loaded.channels] = loaded.steps[loaded.position] if loaded.position >= 0 else loaded.before
        return outputs[list(channels)]

    def _send_and_confirm(
        self, loaded: _LoadedList, commands: Sequence[str], expected: NDArray[np.float64], retries: int | None
    ) -> bool:
        """Send commands of the list; return whether its outputs reach `expected`. If not, lists are not used again.

        Raises
        ------
        DeviceError
            "device": an error reported by the instrument, or the instrument was restarted or set by someone else.
        """
        channels = loaded.channels
        message = scpi.joined([*commands, f"sour:volt:last? {channel_list(channels)}", ERROR_QUERY])
        outputs, error = self._transport.query(
            message, lambda lines: parse_volts_and_error(lines, len(channels)), mutates=True, retries=retries
        )
        if error:
            detail = f"{self._transport.name} reported an error about a list: {error}; lists = false in its settings avoids lists"
            raise DeviceError("device", detail, outcome="unknown")
        if self._wait_for_outputs(channels, expected, outputs):
            return True
        outputs = self._read_outputs(channels)
        self._compare(channels, self._read_setpoints(channels), self._held[channels])
        self._lists_work = False
        worst = int(np.argmax(np.abs(outputs - expected)))
        log.warning(
            "%s: a list left channel %d at %.6g V instead of %.6g V: lists are not used any more, voltages are set instead",
            *(self._transport.name, channels[worst], outputs[worst], expected[worst]),
        )
        return False

    def _wait_for_outputs(self, channels: Sequence[int], expected: NDArray[np.float64], outputs: NDArray[np.float64]) -> bool:
        """Return whether outputs, now at `outputs`, reach `expected`: the instrument's own slew may take a while."""
        for _ in range(OUTPUT_POLLS):
            if np.abs(outputs - expected).max() <= _STEP_TOLERANCE_V:
                return True
            outputs = self._read_outputs(channels)
        return False

    def _read_outputs(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return the outputs, whatever mode the channels are in [V], shape (channels,)."""
        return self._transport.query(
            f"sour:volt:last? {channel_list(channels)}", lambda lines: scpi.numbers(lines[0], len(channels))
        )


def _load_commands(loaded: _LoadedList) -> list[str]:
    """Return the commands that load a list and make every trigger take its next step."""
    channels = channel_list(loaded.channels)
    commands = [f"sour:dc:trig:sour hold,{channels}", f"sour:volt:mode list,{channels}"]
    for channel, column in zip(loaded.channels, loaded.steps.T.tolist(), strict=True):
        commands.append(f"sour{channel + 1}:list:volt {','.join(map(scpi.decimal, column))}")
    return [
        *commands,
        f"sour:list:tmod step,{channels}",
        f"sour:list:dwel {scpi.decimal(_DWELL_S)},{channels}",
        f"sour:list:coun 1,{channels}",
        f"sour:dc:trig:sour int{_TRIGGER},{channels}",
        f"sour:dc:init:cont on,{channels}",
    ]
