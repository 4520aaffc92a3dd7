"""A docstring says in a sentence that begins with a verb what its function does or returns."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("pcamx", "kernels", "launch", "bench")
LINK = ROOT / "pcamx" / "kernels"
# Of the public functions' docstrings; a new one is added here on purpose.
VERBS = frozenset(
    """
    Add Adjust Append Apply Attend Begin Blend Blur Bring Build Call Carve Check Choose Compare
    Compile Compute Copy Count Cut Decode Develop Divide Do Draw Drop Erase Exit Expand Explain
    Fetch Fill Find Gather Give Go Hand Have Hold Import Join Keep Kill Launch Lay Leave Let
    Load Look Make Mask Measure Name Normalise Note Open Parse Place Plan Play Pose Print
    Profile Put Raise Read Record Reduce Refuse Replace Return Run Say Scale Schedule Score Set
    Start Stop Sum Tabulate Take Tell Time Track Train Turn Unpack Upsample Verify Wrap Write
    Yield
    """.split()
)
VALUES = {"property", "cached_property"}  # read as attributes are, so described as attributes


def told(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and docstring of every public function and method that has one."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from told(node, f"{prefix}{node.name}.")
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        decorators = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
        text = ast.get_docstring(node)
        if text and VALUES.isdisjoint(decorators):
            yield prefix + node.name, text


def without_a_verb(source: str) -> list[str]:
    """Return those whose first word is none of `VERBS`."""
    found = told(ast.parse(source))
    return [f"{name}: {text.split()[0]}" for name, text in found if begin(text) not in VERBS]


def begin(text: str) -> str:
    return text.split()[0].rstrip(".,:;")


@pytest.mark.parametrize("room", ROOMS)
def test_they_begin_with_a_verb(room: str) -> None:
    sources = [path for path in (ROOT / room).rglob("*.py") if not path.is_relative_to(LINK)]
    assert sources
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in sources
        if (wrong := without_a_verb(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_the_check_can_fail() -> None:
    method = 'class A:\n    @property\n    def p(self):\n        "Its p."\n'
    assert without_a_verb(method) == []
    assert without_a_verb(method.replace("@property", "@cache")) == ["A.p: Its"]
    assert without_a_verb('def f():\n    "The sum."') == ["f: The"]
    assert without_a_verb('def _f():\n    "The sum."\ndef g(): pass') == []


def test_no_verb_is_left_over() -> None:
    """So that the list stays what the code says."""
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    said = {
        begin(text)
        for path in paths
        for _, text in told(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert VERBS <= said
