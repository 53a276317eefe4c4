"""What must be set anew in an instrument that was lost and found again."""

from __future__ import annotations

from collections.abc import Callable

from photonloop.protocols.errors import DeviceError


class Reconfiguration:
    """Whether an instrument has to be configured, and doing it; one for every transport."""

    def __init__(self) -> None:
        self._configure: Callable[[], None] | None = None
        self.running = False
        """True while the instrument is being configured, through the same transport."""
        self.due = False
        """True from when it was found again until it is configured."""

    def use(self, configure: Callable[[], None]) -> None:
        """Configure by calling `configure`."""
        self._configure = configure

    def found_again(self) -> None:
        """Take note that the instrument was lost: it has to be configured, if there is anything to configure."""
        self.due = self._configure is not None

    def run(self) -> None:
        """Configure the instrument; where that fails by silence, it stays due."""
        if self._configure is None:
            return
        self.running = True
        try:
            self._configure()
            self.due = False
        except DeviceError as error:
            self.due = error.code == "transport"  # a source that was set up says so by raising as well
            raise
        finally:
            self.running = False
