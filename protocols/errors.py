"""How a device says no.

Every refusal is a `DeviceError`: what kind (`code`), whether the same request may be sent again (`retryable`), and what
became of the hardware (`outcome`). A caller that must keep a chip safe overnight decides on these three and on nothing else;
`detail` is one plain sentence for a person.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Code = Literal["bad_request", "limit", "interlock", "lease", "deadline", "device", "transport", "version"]
"""bad_request: malformed, the caller's mistake · limit: would exceed a limit of the device · interlock: stopped by `safe`,
a cancel or a latched fault · lease: another writer holds the device, or this one's lease is gone · deadline: too late ·
device: the hardware failed · transport: the way to the hardware failed · version: the two sides speak different versions."""

Outcome = Literal["not_applied", "applied", "unknown"]
"""not_applied: the hardware is as before the request · applied: the request took effect and then failed ·
unknown: nobody can tell; read `status`, then `apply` an absolute set-point."""


class ErrorBody(BaseModel):
    """A `DeviceError` as data, as it crosses the wire."""

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
        What kind of refusal, one of `Code`.
    detail
        One plain sentence that names the field, the value and the bound.
    retryable
        True when sending the same request again may succeed and can do no harm.
    outcome
        What became of the hardware, one of `Outcome`.
    channel
        The drive channel at fault, counted over the whole device, where there is one.
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
