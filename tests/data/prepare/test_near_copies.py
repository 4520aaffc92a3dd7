"""Films that are the same picture are found, listed, and kept in one split."""

import csv
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pcamx import cli
from pcamx.data.prepare import near_copies
from pcamx.data.prepare.copies_apart import keep_apart
from pcamx.data.prepare.near_copies import Pair, find_copies, look
from pcamx.data.sets.entry import Entry
from pcamx.data.store import read_store

Grey = NDArray[Any]


def drawn(seed: int, height: int = 120, width: int = 90) -> Grey:
    """Soft blobs and fine grain: no two seeds alike, as little as two films are; 12 ... 180."""
    rng = np.random.default_rng(seed)
    blobs = Image.fromarray(rng.random((15, 11), np.float32)).resize((width, height), 3)
    grain = Image.fromarray(rng.random((60, 45), np.float32)).resize((width, height), 3)
    both = np.asarray(blobs) + 0.5 * np.asarray(grain)
    return np.rint(12 + 168 * (both - both.min()) / np.ptp(both)).astype(np.uint8)


def resized(grey: Grey, width: int, height: int) -> Grey:
    return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC))


def saved(grey: Grey) -> Grey:
    file = BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=40)
    with Image.open(file) as image:
        return np.asarray(image)


CHANGES: dict[str, Callable[[Grey], Grey]] = {
    "as it is": lambda g: g,
    "left to right": lambda g: g[:, ::-1],
    "upside down": lambda g: g[::-1],
    "half a turn": lambda g: np.rot90(g, 2),
    "a quarter": lambda g: np.rot90(g),
    "three quarters": lambda g: np.rot90(g, 3),
    "transposed": lambda g: g.T,
    "other transposed": lambda g: np.rot90(g, 2).T,
    "smaller": lambda g: resized(g, 70, 93),
    "larger": lambda g: resized(g, 200, 267),
    "made square": lambda g: resized(g, 128, 128),
    "brighter": lambda g: np.minimum(g * 1.4, 255).astype(np.uint8),
    "darker": lambda g: (g * 0.5).astype(np.uint8),
    "gamma": lambda g: (255 * (g / 255) ** 0.7).astype(np.uint8),
    "a negative": lambda g: 255 - g,
    "a negative, turned, smaller": lambda g: 255 - resized(np.rot90(g), 93, 70),
    "16 bits": lambda g: g.astype(np.uint16) * 16,
    "saved anew": saved,
    "turned, smaller, brighter, saved": lambda g: saved(
        np.minimum(resized(np.rot90(g), 90, 68) * 1.2, 255).astype(np.uint8)
    ),
}


def found(greys: Sequence[Grey], digests: Sequence[str] | None = None) -> list[Pair]:
    return find_copies([look(g) for g in greys], digests or [str(n) for n in range(len(greys))])


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("swapped", [False, True])
def test_a_changed_film_is_found_among_others(change: str, swapped: bool) -> None:
    greys = [drawn(seed) for seed in range(8)]
    copy = CHANGES[change](greys[2])
    greys = [copy, *greys] if swapped else [*greys, copy]
    pairs = [(p.one, p.other) for p in found(greys)]
    assert pairs == [(0, 3) if swapped else (2, 8)]


@pytest.mark.parametrize("lost", ["end", "side", "end, turned and smaller"])
def test_a_film_that_lost_a_part_is_found_by_its_other_half(lost: str) -> None:
    """As IMG0004232 of FracAtlas' training films, which is IMG0002904 of the validation films."""
    greys = [drawn(seed) for seed in range(8)]
    cut = greys[2].copy()
    cut[90:] = 190
    if lost == "side":
        cut = greys[2].copy()
        cut[:, 63:] = 190
    elif "turned" in lost:
        cut = resized(np.rot90(cut), 93, 70)
    (pair,) = found([*greys, cut])
    assert pair[:2] == (2, 8) and 0.98 < pair.correlation < 1


def test_the_correlation_is_pearsons_of_the_best_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against numpy's, over turns made by numpy, of films that are half copies."""
    monkeypatch.setattr(near_copies, "COPY", -1.0)
    monkeypatch.setattr(near_copies, "_CANDIDATE", -1.0)
    one = drawn(0, 96, 96)
    other = np.rot90(0.6 * one + 0.4 * drawn(1, 96, 96)).T
    looks = [np.frombuffer(look(g), np.int8).reshape(64, 64).astype(float) for g in (one, other)]
    turns = [np.rot90(flipped, k) for flipped in (looks[1], looks[1].T) for k in range(4)]
    best = max(np.corrcoef(looks[0].ravel(), turn.ravel())[0, 1] for turn in turns)
    (pair,) = found([one, other])
    assert 0.3 < best < 0.95 and abs(pair.correlation - best) < 1e-5


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    greys = [drawn(seed % 9)[:: 1 - 2 * (seed % 2)] for seed in range(25)]
    whole = found(greys)
    assert {(p.one % 9, p.other % 9) for p in whole} == {(n, n) for n in range(9)}
    monkeypatch.setattr(near_copies, "_ROWS", 4)
    monkeypatch.setattr(near_copies, "_PAIRS", 3)
    blocks = found(greys)
    assert [p[:2] for p in blocks] == [p[:2] for p in whole]


def test_films_that_say_too_little_are_no_copies_but_their_files_may_be_the_same() -> None:
    flat, step = np.full((40, 30), 90, np.uint8), np.zeros((40, 30), np.uint8)
    step[:20] = 120
    brighter = np.minimum(step * 2.0, 255).astype(np.uint8)
    assert found([flat, flat, step, step, brighter]) == []
    pairs = found([flat, step, flat, step, step], ["a", "b", "a", "b", "c"])
    assert pairs == [Pair(0, 2, 1.0, True), Pair(1, 3, 1.0, True)]


def test_the_same_file_is_no_near_copy() -> None:
    """Whose correlation with itself rounding brings above 1 now and then."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        grey = generator.integers(0, 255, (60, 44)).astype(np.uint8)
        assert found([grey, grey], ["a", "a"]) == [Pair(0, 1, 1.0, True)]


def entries(*splits: str) -> list[Entry]:
    return [Entry("", f"f{n}", n % 2, "", "", "", split) for n, split in enumerate(splits)]


def pair(one: int, other: int, correlation: float = 0.9, same_file: bool = False) -> Pair:
    return Pair(one, other, correlation, same_file)


def test_test_wins_over_valid_and_valid_over_train() -> None:
    films = entries("train", "valid", "test", "train", "train", "valid", "test", "train", "train")
    pairs = [
        pair(0, 1),  # and through 1 film 2
        pair(1, 2, 1.0, same_file=True),
        pair(3, 4),  # one split
        pair(5, 7, 0.85),
        pair(5, 8, 0.95),
    ]
    copies = keep_apart(films, range(9), pairs)
    assert copies.left_out == {
        0: "a copy of a copy of f2, a film of the test split",
        1: "the same file as f2, a film of the test split",
        7: "a near copy of f5, a film of the valid split",
        8: "a near copy of f5, a film of the valid split",
    }
    assert (copies.pairs, copies.across, copies.kept) == (5, 4, 0)


def test_a_class_with_nothing_else_to_train_on_keeps_its_copies_and_says_so() -> None:
    films = entries("train", "train", "train", "train", "test", "test")
    copies = keep_apart(films, range(6), [pair(0, 4), pair(2, 5), pair(1, 4)])
    assert copies.left_out == {1: "a near copy of f4, a film of the test split"}
    assert copies.kept == 2


def test_copies_of_two_labels_are_told() -> None:
    films = entries("train", "train", "train", "train", "test")
    copies = keep_apart(films, range(5), [pair(0, 1), pair(0, 2), pair(3, 4)])
    assert copies.contrary == ((0, 1),) and copies.left_out.keys() == {3}


def test_prepare_leaves_them_out_and_lists_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, store = tmp_path / "set", tmp_path / "store"
    root.mkdir()
    rows = [(f"f{n}.png", n % 2, "valid" if n > 5 else "train") for n in range(8)]
    for name, *_ in rows:
        Image.fromarray(drawn(int(name[1]))).save(root / name)
    Image.fromarray(CHANGES["turned, smaller, brighter, saved"](drawn(2))).save(root / "t.png")
    (root / "again.png").write_bytes((root / "f6.png").read_bytes())
    Image.fromarray(drawn(0)[:, ::-1]).save(root / "twin.png")
    rows += [("t.png", 0, "test"), ("again.png", 0, "train"), ("twin.png", 0, "train")]
    with (root / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("path", "label", "split"), *rows])
    monkeypatch.setattr("sys.argv", ["pcamx", "prepare", str(root), "--out", str(store)])
    assert cli.main() == 0
    out = capsys.readouterr().out
    assert "near copies: 3 pairs of films, 2 of them across splits, 2 films left out" in out
    names = [film.path for film in read_store(store).films]
    assert names == [name for name, *_ in rows if name not in ("f2.png", "again.png")]
    with (store / "quarantine.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["f2.png", "a near copy of t.png, a film of the test split"],
            ["again.png", "the same file as f6.png, a film of the valid split"],
        ]
    with (store / "near_copies.csv").open(newline="") as file:
        listed = [(r["path"], r["copy"], r["left_out"]) for r in csv.DictReader(file)]
    assert listed == [
        ("f0.png", "twin.png", ""),
        ("f2.png", "t.png", "f2.png"),
        ("f6.png", "again.png", "again.png"),
    ]
