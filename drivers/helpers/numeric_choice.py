"""Settings that are one of a few numbers, as an instrument's ranges are."""

from __future__ import annotations

from pydantic import AfterValidator


def one_of(*known: float) -> AfterValidator:
    """Return a validator that takes only `known` numbers: `Annotated[float, one_of(1.0, 10.0)]`."""

    def check(value: float) -> float:
        if value not in known:
            raise ValueError(f"it must be one of {', '.join(f'{number:g}' for number in known)}")
        return value

    return AfterValidator(check)
