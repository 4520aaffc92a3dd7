"""Reading a csv with a header."""

from pathlib import Path

import pytest

from pcamx.data.sets.table import label_words, read_table, split_of
from pcamx.errors import PcamxError


def table(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "films.csv"
    file.write_text(text)
    return file


def test_defaults_film_is_patient_is_study(tmp_path: Path) -> None:
    entry = read_table(table(tmp_path, "split,path,label\ntrain,./a/x.png,1\n")).entries[0]
    assert (entry.path, entry.label, entry.split) == ("a/x.png", 1, "train")
    assert (entry.patient, entry.study, entry.part) == ("a/x.png", "a/x.png", "")
    assert entry.where.endswith("films.csv, line 2")


def test_studies_of_two_patients_stay_apart(tmp_path: Path) -> None:
    text = "\ufeffpath,label,split,patient,study,part\n"
    text += "a.png,1,train,p1,1,hand\nb.png,0,test,p2,1,\nc.png,0,valid,,,\n"
    a, b, c = read_table(table(tmp_path, text)).entries
    assert (a.patient, a.study, a.part) == ("p1", "p1/1", "hand")
    assert (b.patient, b.study) == ("p2", "p2/1")
    assert (c.patient, c.study) == ("c.png", "c.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing column path, label; found: nothing"),
        ("path,split\na,train\n", "missing column label; found: path, split"),
        ("path,label,split,Path\n", "a column is given twice"),
        ("path;label;split\na;1\n", "line 2: 3 fields expected, found 2"),
        ("path,label,split\nC:\\x\\a.png,1,train\n", r"line 2: path C:\\x\\a.png leaves"),
        ("path,label,split\n..\\a.png,1,train\n", "line 2: path ../a.png leaves"),
        ("path,label\np1,1\np5,0\n", "no film has a split, and .* fill a column split"),
        ("path,label,split\n", "no films listed"),
        ("path,label,split\na.png,1\n", "line 2: 3 fields expected, found 2"),
        ("path,label,split\n\na.png,yes,train\n", "line 3: label is 'yes'; write 0"),
        ("path,label,split\na.png,1,dev\n", "line 2: split is 'dev'; write train, valid or test"),
        ("path,label,split\na,1,\nb,0,train\n", "line 2: split is ''; .* empty in every row"),
        ("path,label,split\n/a.png,1,train\n", "line 2: path /a.png leaves"),
        ("path,label,split\n../a.png,1,train\n", "line 2: path ../a.png leaves"),
        ("path,label,split\n,1,train\n", "line 2: the path is empty"),
        ("path,label,split\na,1,train\n./a,1,train\n", r"line 3: a is listed twice \(.*line 2"),
        ("path,label,split\na,1,train\na,0,train\n", "line 3: a is listed twice, with two labels"),
        (
            "path,label,split,patient,study\na,1,train,p,s\nb,0,train,p,s\n",
            "line 3: study p/s has label 0 here and 1 in .*line 2; .* study column",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = table(tmp_path, text)
    with pytest.raises(PcamxError, match=message) as error:
        read_table(file)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;"])
def test_a_first_line_may_name_the_delimiter(tmp_path: Path, first: str) -> None:
    """As Excel writes and reads it; the row's own commas are text."""
    file = table(tmp_path, f"{first}\npath;label;split;note\na,1.png;1;train;x,y,z\n")
    films, _ = read_table(file)
    assert [(f.path, f.label) for f in films] == [("a,1.png", 1)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_headers_and_delimiters_as_people_have_them(tmp_path: Path, delimiter: str) -> None:
    """A spreadsheet's header, an index without a name, Windows paths, a split called val."""
    text = "\n".join(
        delimiter.join(row)
        for row in (
            ("", "Path", "LABEL", "Age", "Split", "Patient"),
            ("0", "a\\x.png", "1.0", "7", "Train", "p"),
            ("1", "a\\y.png", "0", "8", "val", "q"),
            ("2", "a\\z.png", "0.0", "9", "Validation", "r"),
        )
    )
    file = table(tmp_path, text)
    films, notes = read_table(file)
    assert [(f.path, f.label, f.split) for f in films] == [
        ("a/x.png", 1, "train"),
        ("a/y.png", 0, "valid"),
        ("a/z.png", 0, "valid"),
    ]
    assert notes == (
        f"{file}: ignored the columns (no name), Age; read: path, label, split, patient, study, "
        "part",
    )


def test_labels_as_words(tmp_path: Path) -> None:
    file = table(tmp_path, "path,label,split,patient\na,Fracture,train,p\nb,no finding,valid,q\n")
    films = read_table(file, label_words("No finding", "fracture")).entries
    assert [film.label for film in films] == [1, 0]
    with pytest.raises(PcamxError, match="line 2: label is 'Fracture'; .*--normal, --abnormal"):
        read_table(file)
    with pytest.raises(PcamxError, match="line 3: label is 'no finding'; --normal is healthy"):
        read_table(file, label_words("healthy", "fracture"))
    with pytest.raises(PcamxError, match="belong together"):
        label_words("healthy", None)
    with pytest.raises(PcamxError, match="name two words"):
        label_words("x", "X ")


def test_a_patient_with_both_labels(tmp_path: Path) -> None:
    """Films whose study nobody names are studies, unless the patient has one label."""
    text = "path,label,split,patient\na,1,train,p\nb,0,train,p\nc,0,train,q\nd,0,train,q\n"
    films, notes = read_table(table(tmp_path, text))
    assert [film.study for film in films] == ["p/a", "p/b", "q", "q"]
    assert len(notes) == 1 and "1 patients have films of both labels" in notes[0]


def test_a_split_is_made_by_patient(tmp_path: Path) -> None:
    """7 : 2 : 1, the same whatever else is listed, and said."""
    names = [f"patient {i}" for i in range(1000)]
    rows = [f"{name}/{film}.png,{i % 2},{name}" for i, name in enumerate(names) for film in "ab"]
    films, notes = read_table(table(tmp_path, "\n".join(["path,label,patient", *rows])))
    assert len({(film.patient, film.split) for film in films}) == 1000
    count = {s: sum(film.split == s for film in films) / 2000 for s in ("train", "valid", "test")}
    # Three standard deviations of a share of 1000 patients: 0.043, 0.038, 0.028.
    assert abs(count["train"] - 0.7) < 0.043 and abs(count["valid"] - 0.2) < 0.038
    assert abs(count["test"] - 0.1) < 0.028
    fewer = read_table(table(tmp_path, "\n".join(["path,label,patient", *rows[:200]]))).entries
    assert [film.split for film in fewer] == [film.split for film in films[:200]]
    assert len(notes) == 1 and f"into {round(count['train'] * 2000)} train" in notes[0]


def test_a_split_column_that_is_empty_is_none(tmp_path: Path) -> None:
    rows = [f"{name}.png,{i % 2},{name}" for i, name in enumerate(("p1", "p2", "p3", "p5"))]
    without = read_table(table(tmp_path, "\n".join(["path,label,patient", *rows])))
    empty = [f"{row}," for row in rows]
    assert read_table(table(tmp_path, "\n".join(["path,label,patient,split", *empty]))) == without


def test_paths_in_full_below_the_data_folder(tmp_path: Path) -> None:
    """As scripts list films; also where the data folder is reached through a link."""
    root = tmp_path / "films"
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    text = f"path,label,split\n{root}/a/x.png,1,train\n{tmp_path}/link/y.png,0,valid\n"
    films = read_table(table(tmp_path, text), root=root).entries
    assert [film.path for film in films] == ["a/x.png", "y.png"]
    with pytest.raises(PcamxError, match=r"line 2: path .*/x.png leaves the data folder"):
        read_table(table(tmp_path, text), root=root / "b")


def test_the_split_of_a_name_is_fixed() -> None:
    """``printf p1 | sha256sum`` and so on, the first 16 bits as a share of 2^16: under .1 test,
    under .3 valid; p1 f645, p2 3946, p3 43bb, p5 536c, p7 03fb.
    """
    found = [split_of(name) for name in ("p1", "p2", "p3", "p5", "p7")]
    assert found == ["train", "valid", "valid", "train", "test"]


def test_unknown_patients_are_said(tmp_path: Path) -> None:
    text = "path,label,split,patient\na,1,train,\nb,0,valid,p\n"
    notes = read_table(table(tmp_path, text)).notes
    assert len(notes) == 1 and notes[0].startswith("warning: ")
    assert "the patient of 1 films is unknown" in notes[0]
    text = "path,label,split,patient\na,1,train,NA\nb,0,valid,nan\nc,1,train,p\nd,0,train,None\n"
    found = read_table(table(tmp_path, text))
    assert [film.patient for film in found.entries] == ["a", "b", "p", "d"]
    assert "the patient of 3 films is unknown" in found.notes[0]
