"""How the terminal, the pages and the records write a number."""

import math
from typing import Any

from pcamx.catalogue import TEMPERATURES

DASH = "–"


def number(value: Any, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` decimals, a dash where there is no finite number."""
    found = finite(value)
    return DASH if found is None else f"{found:.{digits}f}"


def p_value(value: float) -> str:
    """Return a p with three decimals, which is never 0: ``< 0.001`` where it would be."""
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def temperature(value: float) -> str:
    """Return a temperature with two decimals, ``<= 0.01`` or ``>= 100`` at its limits."""
    low, high = TEMPERATURES
    if math.isclose(value, low):
        return f"<= {low:g}"
    return f">= {high:g}" if math.isclose(value, high) else number(value, 2)


def duration(seconds: Any) -> str:
    """Return seconds as ``48 s``, ``12 min 05 s`` or ``2 h 03 min``."""
    found = finite(seconds)
    if found is None or found < 0:
        return DASH
    if found < 10:
        return f"{found:.1f} s"
    whole = round(found)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def finite(value: Any) -> float | None:
    """Return ``value`` where it is a finite number, None where it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
