"""Films that are copies of each other lie in one split: test wins over valid, valid over train.

A film learned from must not be measured on, under whatever name, so of a group that crosses the
splits the films outside the winning one are left out.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pcamx.data.csv_files import csv_text
from pcamx.data.prepare.near_copies import Pair
from pcamx.data.sets.entry import Entry
from pcamx.data.store import SPLITS

_COLUMNS = ("path", "split", "copy", "copy_split", "correlation", "left_out")


class Copies(NamedTuple):
    """What is known of a data set's copies."""

    pairs: int
    across: int
    """Pairs whose films the data set puts into different splits."""
    left_out: Mapping[int, str]
    """Number of the film > reason."""
    contrary: tuple[tuple[int, int], ...]
    """Pairs of two labels, neither film left out."""
    kept: int
    """Training films that are copies of held-out ones and stay: nothing else of their class is
    there to train on."""


def keep_apart(entries: Sequence[Entry], sound: Sequence[int], pairs: Sequence[Pair]) -> Copies:
    """Choose what is left out; ``sound`` are the numbers of the films that may be used.

    A class all of whose training films are copies of held-out films keeps them, and their number
    is told: such a set can be prepared and tried, not measured.
    """
    left_out: dict[int, str] = {}
    for group in _groups(pairs):
        winner = max((entries[n].split for n in group), key=SPLITS.index)
        for number, own in group.items():
            if entries[number].split != winner:
                left_out[number] = _reason(entries, number, own, group, winner)
    kept = 0
    for label in (0, 1):
        trained = [n for n in sound if (entries[n].split, entries[n].label) == ("train", label)]
        if trained and all(n in left_out for n in trained):
            kept += len(trained)
            for number in trained:
                del left_out[number]
    across = sum(entries[p.one].split != entries[p.other].split for p in pairs)
    contrary = tuple(
        (p.one, p.other)
        for p in pairs
        if entries[p.one].label != entries[p.other].label and not {p.one, p.other} & left_out.keys()
    )
    return Copies(len(pairs), across, left_out, contrary, kept)


def _groups(pairs: Sequence[Pair]) -> list[dict[int, list[Pair]]]:
    """Films that hang together by pairs, each with its own pairs."""
    own: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        own[pair.one].append(pair)
        own[pair.other].append(pair)
    groups, seen = [], set[int]()
    for start in own:
        if start in seen:
            continue
        group, ahead = {}, [start]
        while ahead:
            number = ahead.pop()
            if number not in seen:
                seen.add(number)
                group[number] = own[number]
                ahead += [n for pair in own[number] for n in (pair.one, pair.other)]
        groups.append(group)
    return groups


def _reason(
    entries: Sequence[Entry],
    number: int,
    pairs: Sequence[Pair],
    group: Mapping[int, object],
    winner: str,
) -> str:
    """Names the film of the winning split that it is a copy of, through others if it must be."""
    direct = {p.one + p.other - number: p for p in pairs}
    there = [n for n in direct if entries[n].split == winner]
    if not there:
        through = next(n for n in group if entries[n].split == winner)
        return f"a copy of a copy of {entries[through].path}, a film of the {winner} split"
    other = max(there, key=lambda n: direct[n].correlation)
    what = "the same file as" if direct[other].same_file else "a near copy of"
    return f"{what} {entries[other].path}, a film of the {winner} split"


def listing(entries: Sequence[Entry], pairs: Sequence[Pair], copies: Copies) -> str:
    """Return the text of near_copies.csv: a row a pair, and which of its films is left out."""
    rows = []
    for pair in pairs:
        one, other = entries[pair.one], entries[pair.other]
        gone = [entries[n].path for n in (pair.one, pair.other) if n in copies.left_out]
        measure = f"{pair.correlation:.3f}"
        rows.append((one.path, one.split, other.path, other.split, measure, " ".join(gone)))
    return csv_text(_COLUMNS, rows)
