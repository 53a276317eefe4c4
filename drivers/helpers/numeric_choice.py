"""Settings that can only be one of a few numbers, such as the ranges of an instrument."""

from __future__ import annotations

from pydantic import AfterValidator


def one_of(*known: float) -> AfterValidator:
    """Return a validator that accepts only the numbers `known`: `Annotated[float, one_of(1.0, 10.0)]`."""

    def check(value: float) -> float:
        if value not in known:
            raise ValueError(f"it must be one of {', '.join(f'{number:g}' for number in known)}")
        return value

    return AfterValidator(check)
