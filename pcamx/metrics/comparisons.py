"""Many tests at once: p that holds for the whole family."""

from collections.abc import Sequence


def holm(p_M: Sequence[float | None]) -> list[float | None]:
    """Adjust the p of M tests so that one false alarm among all is as likely as each p says.

    Holm 1979: the smallest is multiplied by M, the next by M - 1, ..., never below one before it
    and at most 1. None, where there is no test, stays None and does not count.
    """
    known = [i for i, p in enumerate(p_M) if p is not None]
    order = sorted(known, key=lambda i: p_M[i] or 0.0)
    found: list[float | None] = [None] * len(p_M)
    least = 0.0
    for rank, i in enumerate(order):
        least = max(least, (len(order) - rank) * (p_M[i] or 0.0))
        found[i] = min(1.0, least)
    return found
