"""One patient under two spellings in two splits, as spreadsheets and hands make them."""

from pathlib import Path

import pytest

from pcamx.data.sets.listing import list_films


def notes(folder: Path, *rows: str) -> tuple[str, ...]:
    (folder / "films.csv").write_text("\n".join(["path,label,split,patient", *rows]) + "\n")
    return list_films(folder, folder / "films.csv").notes


@pytest.mark.parametrize(
    ("one", "other"),
    [("P1", "p1"), ("P 1", "P1"), ("007", "7"), ("12", "12.0"), ("MRN-0042", "mrn-42")],
)
def test_two_spellings_are_said(tmp_path: Path, one: str, other: str) -> None:
    said = notes(tmp_path, f"a.png,0,train,{one}", f"b.png,1,valid,{other}", "c.png,1,train,x")
    assert said == (
        "warning: 1 patients may be spelt in two ways and lie in two splits: "
        f"{one} (train) and {other} (valid); if so, spell each in one way",
    )
    assert notes(tmp_path, f"a.png,0,train,{one}", f"b.png,1,train,{other}") == ()


@pytest.mark.parametrize(
    ("one", "other"), [("P1", "P11"), ("P10", "P1"), ("1.5", "15"), ("7.0.1", "7")]
)
def test_two_names_are_none(tmp_path: Path, one: str, other: str) -> None:
    assert notes(tmp_path, f"a.png,0,train,{one}", f"b.png,1,valid,{other}") == ()


def test_films_whose_patient_is_not_known_are_none(tmp_path: Path) -> None:
    (said,) = notes(tmp_path, "film01.png,0,train,", "film1.png,1,valid,")
    assert "the patient of 2 films is unknown" in said


def test_the_first_of_many(tmp_path: Path) -> None:
    rows = [f"{name}{k}.png,0,{split},{name}{k}" for k in range(7) for name, split in PAIR]
    (said,) = notes(tmp_path, *rows)
    assert "7 patients may be" in said and "A4 (train) and a4 (valid) and 2 more" in said


PAIR = (("A", "train"), ("a", "valid"))
