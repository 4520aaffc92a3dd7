"""How work says how far it is and what it does, without knowing who shows it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Yields the items of ``work`` and shows, under the name ``what``, how many are done."""

    def __call__(self, work: Iterable[T], what: str, total: int) -> Iterator[T]: ...


def silent(work: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Track without showing anything."""
    del what, total
    yield from work


Say = Callable[[str], None]
"""Shows one line of text."""


def mute(text: str) -> None:
    """Say nothing."""
    del text
