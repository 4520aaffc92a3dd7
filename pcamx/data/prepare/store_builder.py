"""`pcamx prepare`: from a data set to a store that holds only films that decode."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pcamx.data.contents import Content, content_of, sha256_of
from pcamx.data.phantom import twins
from pcamx.data.prepare.copies_apart import Copies, keep_apart, listing
from pcamx.data.prepare.draw_marks import draw_marks
from pcamx.data.prepare.near_copies import find_copies
from pcamx.data.prepare.store_folder import refuse_foreign
from pcamx.data.prepare.stored_films import store_films
from pcamx.data.prepare.summary import Summary, counts, missing
from pcamx.data.prepare.transcode import Kind, check_codec
from pcamx.data.prepare.verify import Facts, verify
from pcamx.data.sets.entry import Entry
from pcamx.data.sets.listing import list_films
from pcamx.data.sets.table import NUMBERS
from pcamx.data.store import HEAD, NEAR_COPIES, Film, fingerprint, fingerprints, write_store
from pcamx.errors import PcamxError
from pcamx.output import replacing_folder
from pcamx.processes import in_processes
from pcamx.progress import Track, silent

_SAID = ("path", "label", "patient", "study", "part", "split")  # what Entry and Film share


def prepare(
    root: Path,
    out: Path,
    *,
    table: Path | None = None,
    words: Mapping[str, int] = NUMBERS,
    marks: Path | Sequence[Path] | None = None,
    labels: Sequence[str] = (),
    transcode: Kind | None = None,
    workers: int | None = None,
    track: Track = silent,
) -> Summary:
    """Verify a data set's films and write the store ``out``, as a whole or not at all.

    ``root`` is a folder of MURA-v1.1, GRAZPEDWRI-DX or FracAtlas, or holds the films that ``table``
    (root/labels.csv if left out) lists, DICOM among them (`pcamx.data.prepare.dicom_to_png`).
    ``words``: what stands for labels 0 and 1 in the table (`pcamx.data.sets.table.label_words`).
    ``marks``: what `pcamx.data.marks` reads, one or several, all of which count; FracAtlas's and
    GRAZPEDWRI-DX's own are used where others are not named. ``labels``: the classes of marks that
    are lesions, where a file has several.
    ``transcode`` writes the films anew into the store, with a report. ``workers``: processes, all
    cores by default; the result does not depend on it. Run it under
    ``if __name__ == "__main__"``.

    Films that are the same picture are kept in one split (`pcamx.data.prepare.copies_apart`).

    Raises PcamxError that names file and row for any mistake; a store already at ``out`` is
    then as it was.
    """
    root, out = root.resolve(), out.resolve()
    _check_arguments(root, out, workers)
    if transcode is not None:
        check_codec(transcode)
    entries, own_marks, own_labels, notes = list_films(root, table, words)
    if marks is None or not marks:
        marks, labels = own_marks, labels or own_labels
    if labels and marks is None:
        raise PcamxError("--labels chooses among the classes of marks; name these with --marks")
    with replacing_folder(out, refuse_foreign) as draft:
        facts = _checked(root, entries, workers, track)
        copies = _leave_copies_out(entries, facts, draft)
        films, quarantine, size_of = _sort_out(entries, facts)
        if any(entry.split == "train" for entry in entries):
            _check_training(films, quarantine, root)
        mean, std = _grey(entries, facts)
        sound = [(e.path, f) for e, f in zip(entries, facts, strict=True) if isinstance(f, Facts)]
        turns = {path: f.turn for path, f in sound}
        films, tally = draw_marks(
            marks, labels, films, size_of, draft, track, root=root, turns=turns
        )
        dicoms = {path for path, f in sound if f.dicom}
        home, films, parity = store_films(root, draft, films, dicoms, transcode, workers, track)
        contents = _contents(draft, home, films, entries, facts)
        write_store(
            draft, home, films, mean=mean, std=std, quarantine=quarantine, contents=contents
        )
        notes = (*notes, *_contrary(root, entries, copies), *_replaced(out, draft))
    return Summary(
        counts=counts(films),
        quarantined=len(quarantine),
        missing=missing(entries, facts),
        marks=tally,
        mean=mean,
        std=std,
        parity=parity,
        dicoms=len(dicoms),
        copies=copies,
        notes=notes,
    )


def _contrary(root: Path, entries: Sequence[Entry], copies: Copies) -> Iterator[str]:
    """What is to be said where one picture is called normal and abnormal, but that twins are so."""
    if copies.contrary and not (root / twins.FILE).exists():
        one, other = (entries[n] for n in copies.contrary[0])
        yield (
            f"warning: {len(copies.contrary)} pairs of copies have two labels, {one.path} "
            f"{one.label} and {other.path} {other.label}; see {NEAR_COPIES}, take out what is wrong"
        )


def _replaced(out: Path, draft: Path) -> Iterator[str]:
    """What is to be said where another store makes way."""
    if not (out / HEAD).exists():
        return
    with suppress(PcamxError):  # what is damaged may go without a word
        if fingerprint(draft) not in fingerprints(out):
            yield (
                f"warning: {out} held a store of other films, splits or marks; runs that were "
                "trained on it are evaluated and resumed after it is prepared again as it was"
            )


def _checked(
    root: Path, entries: Sequence[Entry], workers: int | None, track: Track
) -> list[Facts | str]:
    """What is known of every film's file, or why it cannot be used."""
    paths = [root / entry.path for entry in entries]
    checks = in_processes(verify, paths, paths, workers)
    checked = track(checks, "checking films", len(entries))
    return [e.left_out or fact for e, fact in zip(entries, checked, strict=True)]


def _check_arguments(root: Path, out: Path, workers: int | None) -> None:
    if not root.is_dir():
        raise PcamxError(f"{root}: no such folder; name the folder that holds the films")
    if workers is not None and workers < 1:
        raise PcamxError(f"workers is {workers}: it must be 1 or more")
    if root.is_relative_to(out):
        what = "is the data folder itself" if out == root else f"holds the data folder {root}"
        raise PcamxError(f"--out {out} {what}; choose a folder for the store")


def _leave_copies_out(entries: Sequence[Entry], facts: list[Facts | str], draft: Path) -> Copies:
    """Put the reason in the place of the facts of copies in other splits; list all copies."""
    sound = [(n, fact) for n, fact in enumerate(facts) if isinstance(fact, Facts)]
    found = find_copies([f.look for _, f in sound], [f.content.sha256 for _, f in sound])
    numbers = [n for n, _ in sound]
    pairs = [pair._replace(one=numbers[pair.one], other=numbers[pair.other]) for pair in found]
    copies = keep_apart(entries, numbers, pairs)
    for number, reason in copies.left_out.items():
        facts[number] = reason
    (draft / NEAR_COPIES).write_text(listing(entries, pairs, copies), encoding="utf-8")
    return copies


def _contents(
    draft: Path,
    home: Path,
    films: Sequence[Film],
    entries: Sequence[Entry],
    facts: Sequence[Facts | str],
) -> dict[str, Content]:
    """What the films' files hold: as they were checked, or as they were written into the store."""
    pairs = zip(entries, facts, strict=True)
    checked = {entry.path: f.content for entry, f in pairs if isinstance(f, Facts)}
    found = {}
    for film in films:
        stored = not home.is_absolute()
        content = content_of(draft / home / film.path) if stored else checked[film.path]
        mark = sha256_of(draft / film.mark) if film.mark else ""
        found[film.path] = content._replace(mark_sha256=mark)
    return found


def _sort_out(
    entries: Sequence[Entry], facts: Sequence[Facts | str]
) -> tuple[list[Film], list[tuple[str, str]], dict[str, tuple[int, int] | None]]:
    """Sound films, quarantine rows, and every film's size, None for the quarantined."""
    films: list[Film] = []
    quarantine: list[tuple[str, str]] = []
    size_of: dict[str, tuple[int, int] | None] = {}
    for entry, fact in zip(entries, facts, strict=True):
        if isinstance(fact, str):
            quarantine.append((entry.path, fact))
            size_of[entry.path] = None
            continue
        size_of[entry.path] = (fact.width, fact.height)
        said = {name: getattr(entry, name) for name in _SAID}
        films.append(Film(width=fact.width, height=fact.height, white=fact.white, mark="", **said))
    return films, quarantine, size_of


def _check_training(
    films: Sequence[Film], quarantine: Sequence[tuple[str, str]], root: Path
) -> None:
    for label, count in zip(
        ("normal", "abnormal"), counts(films).get("train", (0, 0)), strict=True
    ):
        if not count:
            bad = ""
            if quarantine:
                path, reason = quarantine[0]
                bad = f" ({len(quarantine)} unusable, the first: {root / path}: {reason})"
            raise PcamxError(
                f"no {label} film is left to train on{bad}; a classifier needs both classes"
            )


def _grey(entries: Sequence[Entry], facts: Sequence[Facts | str]) -> tuple[float, float]:
    """Mean and standard deviation of the training films' grey levels; each film weighs the same.

    Of all films, where the data set lists none to train on but only those to measure on.
    """
    pairs = zip(entries, facts, strict=True)
    found = [(entry.split, fact) for entry, fact in pairs if isinstance(fact, Facts)]
    train = [fact for split, fact in found if split == "train"] or [fact for _, fact in found]
    if not train:
        raise PcamxError("no film is left; see that the folder holds the films that are listed")
    # fsum is exact, so the order of the films does not show.
    mean = math.fsum(fact.mean for fact in train) / len(train)
    variance = math.fsum(fact.mean_square for fact in train) / len(train) - mean**2
    if variance < 1e-6:
        raise PcamxError("every training film is one flat grey; check that these are the films")
    return mean, math.sqrt(variance)
