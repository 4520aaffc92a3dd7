"""Renders compare.html: runs side by side, in the style of report.html and as self-contained."""

from collections.abc import Sequence

from pcamx.report import comparison_rows, html, rows, sentences
from pcamx.report.comparison_rows import Comparison
from pcamx.report.figures import film_figure, gallery
from pcamx.report.figures.film_figure import Panel


def render(found: Comparison, panels: Sequence[Panel], all_films: str = "") -> str:
    """Return the page as text; ``panels`` as `film_figure.draw` takes them.

    ``all_films`` is the address of the page that shows every film.
    """
    bases = comparison_rows.basis(found)
    values = {
        "runs": list(found.reports),
        "first": found.first,
        "remarks": found.remarks,
        "differences": comparison_rows.differences(found),
        "gaps": list(comparison_rows.gaps(found)),
        "bases": bases,
        "basis": rows.basis_columns((row for group in bases for row in group.rows), "first"),
        "localization": rows.titles("map", "first"),
        "groups": comparison_rows.localization(found),
        "classification": rows.titles("decision", "first"),
        "classes": comparison_rows.classification(found),
        "all_films": all_films,
        "films": [gallery.film(panel) for panel in film_figure.ordered(panels)],
        "legend": gallery.legend(),
        "over": found.over,
        "meanings": list(sentences.terms(found.over)),
        "run": {
            name: [*sentences.facts(report), *_settings(found, name)]
            for name, report in found.reports.items()
        },
    }
    return html.render("compare.html", values)


def _settings(found: Comparison, name: str) -> list[tuple[str, str]]:
    """List what the run's config has that the first's has not."""
    lines = found.settings.get(name, ())
    if name == found.first:
        return []
    return [("settings that differ from the first run's", "; ".join(lines) or "none")]
