"""Reading the MURA-v1.1 layout."""

from pathlib import Path

import pytest

from pcamx.data.sets.mura import is_mura, read_mura
from pcamx.errors import PcamxError

WRIST = "MURA-v1.1/train/XR_WRIST/patient00001/study1_positive/"
HAND = "MURA-v1.1/train/XR_HAND/patient00001/study1_negative/"
VALID = "MURA-v1.1/valid/XR_HAND/patient11185/study2_negative/"
FILES = {
    "train_labeled_studies.csv": f"{WRIST},1\n{HAND},0\n",
    "train_image_paths.csv": f"{WRIST}image1.png\n{WRIST}image2.png\n{HAND}image1.png\n",
    "valid_labeled_studies.csv": f"{VALID},0\n",
    "valid_image_paths.csv": f"{VALID}image1.png\n{VALID}._image1.png\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_label_of_the_study_and_names_from_the_path(root: Path) -> None:
    entries = read_mura(root)
    assert [(e.path, e.label, e.part, e.split) for e in entries] == [
        (WRIST[10:] + "image1.png", 1, "XR_WRIST", "train"),
        (WRIST[10:] + "image2.png", 1, "XR_WRIST", "train"),
        (HAND[10:] + "image1.png", 0, "XR_HAND", "train"),
        (VALID[10:] + "image1.png", 0, "XR_HAND", "valid"),
    ]
    assert [e.patient for e in entries] == ["patient00001"] * 3 + ["patient11185"]
    assert entries[0].study == "train/XR_WRIST/patient00001/study1"
    assert entries[2].study == "train/XR_HAND/patient00001/study1"
    assert is_mura(root)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_csv_is_named(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(PcamxError, match=f"{name} missing; .* four csv files"):
        read_mura(root)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(PcamxError, match="no such folder"):
        read_mura(tmp_path / "none")


STUDIES, IMAGES = "train_labeled_studies.csv", "train_image_paths.csv"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (IMAGES, "path\n" + FILES[IMAGES], "line 1: a header; .* delete this line"),
        (STUDIES, "study,label\n" + FILES[STUDIES], "line 1: a header"),
        (STUDIES, f"{WRIST},2\n", "line 1: label is '2'; write 0"),
        (STUDIES, f"{WRIST},\n", "line 1: label is ''"),
        (STUDIES, f"{WRIST}\n", "line 1: 2 fields expected, found 1"),
        (STUDIES, f"{WRIST},0\n", "line 1: the folder says positive, the label says 0"),
        (STUDIES, f"{WRIST},1\n{HAND},1\n", "line 2: the folder says negative, the label says 1"),
        (STUDIES, f"{WRIST},1\n{WRIST},1\n", "line 2: study .* listed twice .*line 1"),
        (STUDIES, f"{WRIST},1\n", f"{IMAGES}, line 3: study .*study1_negative has no label"),
        (STUDIES, f"{VALID},0\n", "line 1: .* is not of the form MURA-v1.1/train/XR_PART"),
        (STUDIES, "MURA-v1.1/train/XR_HAND/study1,1\n", "line 1: .* is not of the form"),
        (STUDIES, FILES[STUDIES] + WRIST.replace("y1", "y2") + ",1\n", "line 3: .* has no film"),
        (STUDIES, "", "train_labeled_studies.csv: empty"),
        (IMAGES, FILES[IMAGES] + f"{WRIST}image2.png\n", "line 4: .*listed twice .*line 2"),
        (IMAGES, f"{WRIST}../../x.png\n", "line 1: path .* leaves"),
        (IMAGES, f"/data/{WRIST}x.png\n", "line 1: path .* leaves"),
        (IMAGES, f"MURA-v1.0{WRIST[9:]}x.png\n", "line 1: .* does not start with MURA-v1.1/"),
        (IMAGES, f"{VALID}x.png\n", "line 1: study .* has no label"),
        (IMAGES, f"{WRIST}x.png,1\n", "line 1: 1 fields expected, found 2"),
    ],
)
def test_mistakes_are_named_in_one_line(root: Path, name: str, text: str, message: str) -> None:
    (root / name).write_text(text)
    with pytest.raises(PcamxError, match=message) as error:
        read_mura(root)
    assert str(error.value).startswith(str(root)) and "\n" not in str(error.value)
