"""The client's side of the write lease: acquire it, renew it in a thread, release it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from pydantic import JsonValue

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire.messages import Op

Ask = Callable[[Op, dict[str, JsonValue]], Mapping[str, JsonValue]]
"""Sends a request with this body and returns the body of its reply, or raises `DeviceError`."""


class LeaseKeeper:
    """Holds the lease of one client and renews it in a thread.

    Parameters
    ----------
    ask
        Sends a request to the server. It is called from the renewing thread as well.
    lease_key, label
        See `photonloop.protocols.client.device_client.connect`.
    """

    def __init__(self, ask: Ask, lease_key: str, label: str) -> None:
        self.lost: str | None = None
        """Why the lease was lost; None while it is held, and after `release`."""
        self._ask = ask
        self._lease_key = lease_key
        self._label = label
        self._acquired = False
        self._renewing: threading.Thread | None = None
        self._stopped = threading.Event()

    @property
    def acquired(self) -> bool:
        """Whether the lease was acquired and not released, also if it was lost since."""
        return self._acquired

    def acquire(self, ttl_s: float) -> None:
        """Acquire the lease and start to renew it three times per `ttl_s`.

        Raises
        ------
        DeviceError
            "lease" if another writer holds the device.
        """
        self.stop_renewing()
        self._ask("acquire", {"lease_key": self._lease_key, "label": self._label, "ttl_s": ttl_s})
        self.lost = None
        self._acquired = True
        self._stopped.clear()
        self._renewing = threading.Thread(target=self._renew, args=(ttl_s,), name="photonloop-lease", daemon=True)
        self._renewing.start()

    def release(self) -> None:
        """Release the lease; no effect if it is not held."""
        self.stop_renewing()
        held, self._acquired = self._acquired and self.lost is None, False
        if held:
            self._ask("release", {})

    def forget(self) -> None:
        """Stop renewing without a release, because the server that granted the lease is gone."""
        self.stop_renewing()
        self._acquired = False

    def stop_renewing(self) -> None:
        """Stop the renewing thread, so that the lease runs out unless it is acquired again."""
        self._stopped.set()
        if self._renewing is not None and self._renewing is not threading.current_thread():
            self._renewing.join()
        self._renewing = None

    def _renew(self, ttl_s: float) -> None:
        renewed_s = time.monotonic()
        while not self._stopped.wait(ttl_s / 3):
            asked_s = time.monotonic()
            try:
                self._ask("renew", {})
                renewed_s = asked_s
            except DeviceError as error:
                if error.code == "lease" or time.monotonic() - renewed_s > ttl_s:
                    self.lost = error.detail
                    return
