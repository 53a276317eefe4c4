"""Numbers, durations and times as the report shows them; an unknown value is shown as "–"."""

from __future__ import annotations

import math
from datetime import datetime

from photonloop.controller.report.run_contents import float_or_nan

UNKNOWN = "–"

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))
_PREFIXED = frozenset({"A", "V", "W"})
"""Units of uncertain values that get a prefix."""
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent_text(share: object) -> str:
    """Return a share as "86.7%"."""
    number = float_or_nan(share)
    return f"{number:.1%}" if math.isfinite(number) else UNKNOWN


def thousands_text(count: object) -> str:
    """Return a count with its thousands separated by narrow spaces."""
    number = float_or_nan(count)
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}") if math.isfinite(number) else UNKNOWN


def radians_text(angle_rad: object) -> str:
    """Return an angle as "0.05 rad"."""
    number = float_or_nan(angle_rad)
    return f"{number:.4g} rad" if math.isfinite(number) else UNKNOWN


def duration_text(seconds: object) -> str:
    """Return a duration as "52.4 s", "35 min" or "4 h 10 min"."""
    number = float_or_nan(seconds)
    if not math.isfinite(number):
        return UNKNOWN
    if number < 120:
        return f"{number:.3g} s"
    minutes = round(number / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def time_text(time: object) -> str:
    """Return an ISO 8601 time to the second, in its own time zone; any other text as it is."""
    text = str(time)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = " UTC" if moment.utcoffset() is not None and not moment.utcoffset() else ""
    return moment.strftime("%Y-%m-%d %H:%M:%S") + zone


def unit_prefix(largest: float) -> tuple[float, str]:
    """Return the factor and the letter of the unit prefix for numbers up to `largest`, such as (1e-6, "µ")."""
    return next((found for found in _PREFIXES if largest >= found[0]), _PREFIXES[-1])


def quantity_text(value: float, unit: str) -> str:
    """Return a quantity as "12.3 µA"."""
    if not math.isfinite(value):
        return UNKNOWN
    factor, prefix = unit_prefix(abs(value))
    return f"{value / factor:.3g} {prefix}{unit}".strip() if value else f"0 {unit}".strip()


def short_text(value: float, unit: str = "") -> str:
    """Return a number to three significant digits, small ones as "4.97 × 10⁻⁵"; A, V and W with a unit prefix."""
    if unit in _PREFIXED or not math.isfinite(value):
        return quantity_text(value, unit)
    power = math.floor(math.log10(abs(value))) if 0 < abs(value) < 1e-3 else 0
    text = f"{value / 10.0**power:.3g}".replace("-", "−")
    if power:
        text = f"{text} × 10{str(power).translate(_SUPERSCRIPT)}"
    return f"{text} {unit}".strip()


def uncertain_text(value: float, sigma: float, unit: str = "") -> str:
    """Return a value and its standard deviation, both to the second significant digit of the latter.

    Examples
    --------
    >>> uncertain_text(0.0041234, 0.00021)
    '0.00412 ± 0.00021'
    >>> uncertain_text(0.0041234, 0.00021, "A")
    '4.12 ± 0.21 mA'
    >>> uncertain_text(2.03e-6, 1e-8)
    '(2.030 ± 0.010) × 10⁻⁶'
    """
    if not math.isfinite(value):
        return UNKNOWN
    if not (math.isfinite(sigma) and sigma > 0):
        return short_text(value, unit)
    factor, prefix = unit_prefix(max(abs(value), sigma)) if unit in _PREFIXED else (1.0, "")
    largest = max(abs(value), sigma) / factor
    power = math.floor(math.log10(largest)) if largest < 1e-3 or largest >= 1e5 else 0
    scale = factor * 10.0**power
    digits = max(0, 1 - math.floor(math.log10(sigma / scale)))
    text = f"{value / scale:.{digits}f} ± {sigma / scale:.{digits}f}".replace("-", "−")
    if power:
        text = f"({text}) × 10{str(power).translate(_SUPERSCRIPT)}"
    return f"{text} {prefix}{unit}".strip()
