"""Reports of a session: events, messages and warnings to the run folder and to the listener."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.learning.network import Layer
from photonloop.controller.learning.progress import EpochReport, Listener
from photonloop.controller.learning.reading_flags import FlagWarnings
from photonloop.controller.runs.run_folder import RunFolder, read_events


class SessionReporter:
    """Passes events, messages and warnings of a session on to its listener and its run folder.

    Parameters
    ----------
    listener
        Receives messages and the progress of each epoch.
    folder
        The run folder. None: only the listener is informed, for example before a run folder exists.
    """

    def __init__(self, listener: Listener, folder: RunFolder | None = None) -> None:
        self.folder = folder
        self._listener = listener
        self._flags = FlagWarnings()

    def event(self, event: str, **fields: Any) -> None:
        """Append an event to the metrics of the run folder."""
        if self.folder is not None:
            self.folder.event(event, **fields)

    def message(self, text: str) -> None:
        """Log a message and pass it to the listener."""
        if self.folder is not None:
            self.folder.log(text)
        self._listener.message(text)

    def warn(self, text: str) -> None:
        """Record, log and pass on a warning."""
        self.event("warning", message=text)
        self.message(f"warning: {text}")

    def device_lost(self, text: str) -> None:
        """Record, log and pass on that the connection to the device was lost."""
        self.event("device_lost", message=text)
        self.message(text)

    def device_back(self, text: str) -> None:
        """Record, log and pass on that the device is available again."""
        self.event("device_back", message=text)
        self.message(text)

    def flags(self, layer: Layer, flags: NDArray[np.uint32], occasion: str) -> None:
        """Warn of flagged readings of `layer`, once per layer and kind of flag; `occasion` as in "of update 12"."""
        if (warning := self._flags.new_warning(layer.name, flags, occasion)) is not None:
            self.warn(warning)

    def epoch(self, report: EpochReport) -> None:
        """Record the end of an epoch and pass it to the listener."""
        self.event(
            "epoch",
            layer=report.layer,
            epoch=report.epoch,
            update=report.update,
            loss=report.loss,
            train_accuracy=report.train_accuracy,
            test_accuracy=report.test_accuracy,
            evaluations=report.evaluations,
            evaluations_per_s=report.evaluations_per_s,
            wall_s=report.wall_s,
        )
        self._listener.epoch(report)


class RecordedEvents:
    """Events that were in the run folder when the session was opened. A resumed session does not record them again.

    Parameters
    ----------
    folder
        The run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._keys = {(e["event"], e.get("layer"), e.get("epoch")) for e in read_events(folder.path) if "event" in e}

    def has(self, event: str, layer: int, epoch: int | None = None) -> bool:
        """Return whether an earlier session recorded this event."""
        return (event, layer, epoch) in self._keys
