"""Numbers, durations and times as the report shows them; an unknown value is shown as "–"."""

from __future__ import annotations

import math
from datetime import datetime

from photonloop.controller.report.run_contents import float_or_nan

UNKNOWN = "–"


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
