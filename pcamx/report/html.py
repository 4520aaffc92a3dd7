"""Fills in the HTML templates that lie in ``templates/``: here is jinja2, and nowhere else.

A page is ``templates/NAME.html``; it extends ``base.html``, which holds the head that all pages
share and takes in ``page.css``, and imports the macros of ``tables.html``, ``films.html`` and
``lists.html``. Whatever data brings is escaped; a name that a page lacks is an error.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pcamx.output import readable
from pcamx.report import downloads, numbers, rows


def render(name: str, values: dict[str, Any]) -> str:
    """Fill in the template ``name`` with ``values`` and return the page as text that is UTF-8.

    Raises jinja2's UndefinedError where the template asks for a value that is not there.
    """
    return "".join(pieces(name, values))


def pieces(name: str, values: dict[str, Any]) -> Iterator[str]:
    """Yield what `render` returns piece by piece, so that a large page is never held whole."""
    yield from map(readable, _environment().get_template(name).generate(values))


@cache
def _environment() -> Environment:
    """Open the templates where the package lies, with the filters that they use."""
    environment = Environment(
        loader=PackageLoader("pcamx.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "csv_link": downloads.csv_link,
        "latex_link": downloads.latex_link,
        "nameless": lambda found: rows.Group("", tuple(found)),
    }
    environment.filters |= {
        "number": numbers.number,
        "p": numbers.p_value,
        "percent": _percent,
        "in_script": _in_script,
    }
    return environment


def _in_script(text: str) -> Markup:
    """Let JSON stand in a script element as it is; "<" is all that could end it there."""
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704


def _percent(value: float) -> str:
    """Write a share as percents for CSS."""
    return f"{100 * value:.2f}"
