"""The error that all devices raise.

Every refusal or failure is a `DeviceError` with its kind (`code`), whether the same request may be sent again
(`retryable`), and the state of the hardware afterwards (`outcome`). Programs decide by these three; `detail` is one
sentence for the user.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Code = Literal["bad_request", "limit", "interlock", "lease", "deadline", "device", "transport", "version"]
"""bad_request: the request is malformed · limit: it would exceed a limit of the device · interlock: it was stopped by
`safe`, `cancel` or a latched fault · lease: another writer holds the device, or the lease was lost · deadline: the
deadline passed · device: the hardware failed · transport: the connection failed · version: the two sides have different
protocol versions."""

Outcome = Literal["not_applied", "applied", "unknown"]
"""not_applied: the hardware is as before the request · applied: the request took effect and then failed ·
unknown: it cannot be determined; read `status`, then `apply` an absolute drive."""


class ErrorBody(BaseModel):
    """A `DeviceError` as data, as it is sent in a message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: Code
    detail: str
    retryable: bool = False
    outcome: Outcome = "not_applied"
    channel: int | None = None


class DeviceError(Exception):
    """A request that a device refused or failed to carry out.

    Parameters
    ----------
    code
        Kind of error, one of `Code`.
    detail
        One sentence with the field, the value and the bound.
    retryable
        True if the same request may succeed when it is sent again, and is harmless.
    outcome
        State of the hardware, one of `Outcome`.
    channel
        The drive channel at fault, counted over the whole device; None if the error does not concern one channel.
    """

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        retryable: bool = False,
        outcome: Outcome = "not_applied",
        channel: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code: Code = code
        self.detail = detail
        self.retryable = retryable
        self.outcome: Outcome = outcome
        self.channel = channel

    def body(self) -> ErrorBody:
        """Return this error as data."""
        return ErrorBody(
            code=self.code,
            detail=self.detail,
            retryable=self.retryable,
            outcome=self.outcome,
            channel=self.channel,
        )

    @classmethod
    def from_body(cls, body: ErrorBody) -> DeviceError:
        """Return the error that `body` describes."""
        return cls(body.code, body.detail, retryable=body.retryable, outcome=body.outcome, channel=body.channel)
