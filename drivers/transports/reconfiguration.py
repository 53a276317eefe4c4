"""Configuring an instrument again after it was lost and reconnected."""

from __future__ import annotations

from collections.abc import Callable

from photonloop.protocols.errors import DeviceError


class Reconfiguration:
    """Calls a driver's `configure` after a reconnection; shared by all transports."""

    def __init__(self) -> None:
        self._configure: Callable[[], None] | None = None
        self.running = False
        """True while the instrument is being configured, through the same transport."""
        self.due = False
        """True from the reconnection until the instrument is configured."""

    def set_configure(self, configure: Callable[[], None]) -> None:
        """Use `configure` to configure the instrument."""
        self._configure = configure

    def require(self) -> None:
        """Record that the instrument was lost and must be configured, if there is a `configure`."""
        self.due = self._configure is not None

    def run(self) -> None:
        """Configure the instrument. If that fails with a "transport" error, it stays due."""
        if self._configure is None:
            return
        self.running = True
        try:
            self._configure()
            self.due = False
        except DeviceError as error:
            self.due = error.code == "transport"  # a source that was configured reports its restart by raising as well
            raise
        finally:
            self.running = False
