"""Reading a csv with a header."""

from pathlib import Path

import pytest

from pcamx.data.sets.table import read_table
from pcamx.errors import PcamxError


def table(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "films.csv"
    file.write_text(text)
    return file


def test_defaults_film_is_patient_is_study(tmp_path: Path) -> None:
    entry = read_table(table(tmp_path, "split,path,label\ntrain,./a/x.png,1\n"))[0]
    assert (entry.path, entry.label, entry.split) == ("a/x.png", 1, "train")
    assert (entry.patient, entry.study, entry.part) == ("a/x.png", "a/x.png", "")
    assert entry.where.endswith("films.csv, line 2")


def test_studies_of_two_patients_stay_apart(tmp_path: Path) -> None:
    text = "\ufeffpath,label,split,patient,study,part\n"
    text += "a.png,1,train,p1,1,hand\nb.png,0,test,p2,1,\nc.png,0,valid,,,\n"
    a, b, c = read_table(table(tmp_path, text))
    assert (a.patient, a.study, a.part) == ("p1", "p1/1", "hand")
    assert (b.patient, b.study) == ("p2", "p2/1")
    assert (c.patient, c.study) == ("c.png", "c.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing column path, label, split; found: nothing"),
        ("path,split\na,train\n", "missing column label; found: path, split"),
        ("path,label,split,age\n", "unknown column age; known: path, .*; found: path, label"),
        ("path,label,split,path\n", "a column is given twice"),
        ("path,label,split\n", "no films listed"),
        ("path,label,split\na.png,1\n", "line 2: 3 fields expected, found 2"),
        ("path,label,split\n\na.png,yes,train\n", "line 3: label is 'yes'; write 0"),
        ("path,label,split\na.png,1,dev\n", "line 2: split is 'dev'; write train, valid or test"),
        ("path,label,split\n/a.png,1,train\n", "line 2: path /a.png leaves"),
        ("path,label,split\n../a.png,1,train\n", "line 2: path ../a.png leaves"),
        ("path,label,split\n,1,train\n", "line 2: the path is empty"),
        ("path,label,split\na,1,train\n./a,1,train\n", "line 3: a is listed twice .*line 2"),
        (
            "path,label,split,patient\na,1,train,p\nb,0,train,p\n",
            "line 3: study p has label 0 here and 1 in .*line 2; .* study column",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = table(tmp_path, text)
    with pytest.raises(PcamxError, match=message) as error:
        read_table(file)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)
