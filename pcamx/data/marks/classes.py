"""Which of the classes that people marked are lesions.

A set whose marks are all of one class says so itself. In one of several, a side letter or a plate
may be marked as well as a fracture: whoever uses it has to choose.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from pcamx.data.marks.parse import line
from pcamx.errors import PcamxError

_NAMED = 12
_WHOLE = re.compile(r"(\d+)\.0*")


def class_name(label: str) -> str:
    """Return a label as it is counted: 1.0 and 1. are 1, as spreadsheets turn one into another."""
    whole = _WHOLE.fullmatch(label.strip())
    return whole[1] if whole else label.strip()


def count(labels: Iterable[tuple[str, ...]]) -> Counter[str]:
    """Count the marks of each class, by the classes of each; those of none do not count."""
    return Counter(label for several in labels for label in several)


def require_one(source: Path, found: Counter[str]) -> None:
    """Raise PcamxError where a source has several classes, which names them.

    Names that differ in case alone are one class.
    """
    if len({name.casefold() for name in found}) > 1:
        names = [name for name, _ in found.most_common()]
        raise PcamxError(
            f"{source}: marks of {len(names)} classes, {listed(found)}; say which are lesions, "
            f"separated by commas: --labels {_word(names[0])}"
        )


def require_known(chosen: Sequence[str], found: Counter[str]) -> None:
    """Raise PcamxError if no mark is of a class that was ``chosen``, with the nearest that is."""
    known = {name.casefold(): name for name in found}
    for name in chosen:
        if _key(name) not in known:
            near = get_close_matches(_key(name), known, 1)
            hint = f"did you mean {line(known[near[0]])}? " if near else ""
            has = (
                f"the marks have {listed(found)}" if found else "no mark has a class; leave it out"
            )
            raise PcamxError(f"--labels {line(name)}: no usable mark is of this class; {hint}{has}")


def is_chosen(labels: tuple[str, ...], chosen: Sequence[str]) -> bool:
    """Tell whether one of a mark's classes was chosen."""
    return not {_key(label) for label in labels}.isdisjoint(map(_key, chosen))


def listed(found: Counter[str]) -> str:
    """Return ``fracture 4, metal 2``, the most frequent first."""
    names = [f"{line(name)} {number}" for name, number in found.most_common(_NAMED)]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(names) + more


def _word(name: str) -> str:
    """The name as the shell takes it, in quotes of its own where it holds a comma."""
    text = line(name)
    return shlex.quote(f'"{text}"') if "," in text else text


def _key(label: str) -> str:
    return class_name(label).casefold()
