"""What a film's ``patient`` stands for, and so what intervals draw: the one place that knows."""

from collections.abc import Sequence

from pcamx.data.store import Film

PATIENTS, FILMS, BLOCKS = "patients", "films", "blocks of films"
_BLOCK = "block "


def block(number: int) -> str:
    """Return what stands for the patient where a set names none but its films lie in order."""
    return f"{_BLOCK}{number}"


def drawn(films: Sequence[Film]) -> str:
    """Return what an interval over ``films`` draws: `PATIENTS`, or `FILMS` where no two are of one.

    The latter is so where the patients are unknown, since `pcamx prepare` then counts each film as
    one; `BLOCKS` where blocks of films stand for them.
    """
    names = {film.patient for film in films}
    if all(name.startswith(_BLOCK) for name in names):
        return BLOCKS
    return FILMS if len(names) == len(films) else PATIENTS
