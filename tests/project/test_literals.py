"""Stages, maps, measures and a run's files are named in one place: no literal does elsewhere.

Docstrings and prose apart; what is left has a reason here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcamx.catalogue import (
    AGAINST_SEGMENTER,
    BASELINES,
    KAPPA_BY_PART,
    MAPS,
    MEASURES,
    STAGE_1,
    TRAINABLES,
    losses,
)
from pcamx.run.paths import RunPaths

ROOT = Path(__file__).resolve().parents[2]
HOMES = ("pcamx/catalogue/", "pcamx/run/paths.py")
RUN = RunPaths(Path("run"))
FILES = {
    *(
        path.name
        for name, value in vars(RunPaths).items()
        if isinstance(value, property)
        for path in [getattr(RUN, name)]
        if path.suffix
    ),
    RUN.weights(STAGE_1.key).name,
    RUN.checkpoints(STAGE_1.key).name,
    RUN.measured_on(None, "test").path.name,
}
NAMES = {
    *(str(name) for entry in TRAINABLES for name in (entry.key, entry.section, entry.title)),
    *(name for entry in (*MAPS, *BASELINES, *MEASURES) for name in (entry.key, entry.title)),
    *(measure.column for measure in MEASURES if measure.column),
    *(loss.key for loss in losses()),
    *(AGAINST_SEGMENTER, KAPPA_BY_PART),
    *FILES,
}
NUMBERS = {str(entry.key) for entry in TRAINABLES if isinstance(entry.key, int)}
"""They mean a stage only where the code says so."""
ALSO_WORDS = {"share", "loss"}
"""Of the language, which a unit, an axis and an option have too."""
SOUGHT = NAMES - NUMBERS - ALSO_WORDS
NUMBERED = {"stage", "weights", "checkpoints", "load_weights"}
"""Methods of a run's folder, and keywords, that take a stage's key."""
ALLOWED = {
    # Values of a config's key, which its Literal has to hold, and what each of them calls.
    "pcamx/config/sections.py": {"pointing"},
    "pcamx/training/losses/on_map.py": {"pointing", "energy", "l1"},
    "pcamx/training/stages.py": {"decoder"},
    # Of a network's parameters and buffers, in weights.pt.
    "pcamx/training/start_weights.py": {"decoder."},
    "pcamx/training/stage_run.py": {"accuracy.value"},
    # The film's decoder, in the head of a cache.
    "pcamx/data/canvas/cache.py": {"decoder"},
    # A method of PositiveCAM, which knows no catalogue.
    "pcamx/cam/positive_cam.py": {"cam"},
    # A norm.
    "pcamx/metrics/calibration.py": {"l1"},
    # Of other folders than a run's, and an HTML template.
    "pcamx/explain/summary.py": {"films.csv"},
    "pcamx/cli/explain.py": {"films.csv"},
    "pcamx/compare/__init__.py": {"figure2.png", "films.html"},
    "pcamx/report/page.py": {"report.html"},
    "bench/lib/torture/inputs.py": {"inputs/films.csv"},
    "bench/mura.py": {"config.yaml"},
    "pcamx/marking/package.py": {"to_mark.csv"},
}


def found(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every literal that names what has a name in the catalogue."""
    tree = ast.parse(source)
    apart = {id(part) for node in ast.walk(tree) if told(node) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in apart:
            if isinstance(node.value, str) and names(node.value):
                yield node.lineno, node.value
        for part in keys(node):
            if isinstance(part, ast.Constant) and str(part.value) in NUMBERS:
                yield part.lineno, str(part.value)


def told(node: ast.AST) -> bool:
    """Tell whether strings in it are prose, a Literal's values, or the names of a module."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Name) and node.value.id == "Literal"
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def names(text: str) -> bool:
    """Tell whether a word of ``text`` is a name; of prose one that no sentence has."""
    if text.startswith(("--", "pcamx.")):  # an option, a module
        return False
    if text in SOUGHT:
        return True
    words = {*re.split(r"[^\w-]+", text), *re.split(r"[^\w.-]+", text)}
    if re.search(r"\s", text.strip()):
        words = {word for word in words - FILES if re.search(r"[a-z]_|[a-z]\d", word)}
    return bool(words & SOUGHT)


def keys(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what stands where a stage's key is asked for."""
    if isinstance(node, ast.keyword) and node.arg in NUMBERED:
        yield node.value
    parts = node.elts if isinstance(node, ast.List | ast.Tuple) else []
    if isinstance(node, ast.Call):
        parts = node.args
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        yield from parts[:1] if name in NUMBERED else []
        if any(map(option, parts)):
            choices = [word.value for word in node.keywords if word.arg == "choices"]
            yield from (p for value in choices for p in ast.walk(value) if isinstance(p, ast.expr))
    yield from (after for one, after in zip(parts, parts[1:], strict=False) if option(one))


def option(part: ast.expr) -> bool:
    return isinstance(part, ast.Constant) and part.value in ("--stage", "--stages")


def test_no_literal_names_what_the_catalogue_names() -> None:
    left = []
    for path in (*(ROOT / "pcamx").rglob("*.py"), *(ROOT / "bench").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if not name.startswith((*HOMES, "pcamx/kernels/")):
            allowed = ALLOWED.get(name, set())
            literals = found(path.read_text(encoding="utf-8"))
            left += [f"{name}:{line}: {text!r}" for line, text in literals if text not in allowed]
    assert left == []


def test_what_is_allowed_is_there() -> None:
    there = {name: {text for _, text in found((ROOT / name).read_text())} for name in ALLOWED}
    assert there == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "x = 'segmenter'",
        "x = 'stages.stage3.epochs=2'",
        "x = 'run/stage1/weights.pt'",
        "x = f'  stage2: {{epochs: {n}, init_from: {first}}}'",
        "x = report['stage3_against_segmenter']",
        "x = {'l1': 1}",
        "x = 'positive CAM'",
        "x = run / 'report.json'",
        "x = run / 'on_test'",
        "run.load_weights(1)",
        "feed(stage=3)",
        "words = ['--stage', '3']",
        "made.add_argument('--stages', choices=[1, 2])",
    ],
)
def test_the_check_can_fail(source: str) -> None:
    assert list(found(source))


@pytest.mark.parametrize(
    "source",
    [
        "'''Of stage3, l1 and report.json.'''",
        "x = 'the decoder after stage 3, and the energy of its positive CAM'",
        "x = '--share'",
        "x: Literal['pointing', 'l1'] = y",
        "__all__ = ['energy']",
        "threads(1)",
        "x = ['1', 2]",
    ],
)
def test_prose_is_no_name(source: str) -> None:
    assert list(found(source)) == []
