"""Formats x oddities against masks worked out from the centres of pixels, and what is said."""

from pathlib import Path

import numpy as np
import pytest
from marks_matrix import MATRIX
from marks_truth import FILMS

from pcamx.data.marks import read_marks


@pytest.mark.parametrize("name", MATRIX)
def test_the_mask_and_what_is_said(tmp_path: Path, name: str) -> None:
    case = MATRIX[name]
    found = read_marks(case.write(tmp_path), FILMS, case.labels)
    assert set(found.masks) == {*case.exact, *case.near}
    for film, make in found.masks.items():
        assert make is not None
        lesion = make() > 0
        if film in case.exact:
            assert np.array_equal(lesion, case.exact[film])
        else:
            want = case.near[film]
            assert want.sum() > 40 and np.count_nonzero(lesion != want) <= 2
    said = [f"{problem.kind}: {problem.text}" for problem in found.problems]
    assert len(said) == len(case.says), said
    assert all(text.startswith(start) for text, start in zip(said, case.says, strict=True)), said
    for problem in found.problems:  # what `pcamx prepare` prints
        assert any(problem.text in note for note in found.notes())
