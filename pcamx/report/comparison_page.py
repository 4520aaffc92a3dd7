"""compare.html: runs side by side, in the style of report.html and as self-contained."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from pcamx.report import comparison_rows, film_figure, rows, sentences
from pcamx.report.comparison_rows import Comparison
from pcamx.report.film_figure import Panel
from pcamx.report.page import environment, film, legend, share
from pcamx.report.style import STYLE
from pcamx.report.template import MACROS

_PAGE = (
    MACROS
    + """{%- macro gap(found) -%}
<td>{% if found.value is none %}{{ dash }}{% else -%}
<data value="{{ found.value }}"{% if not found.clear %} class="unclear"{% endif %}>
{{- found.text() }}</data>
{% if found.interval() %}<span class="range">{{ found.interval() }}</span>{% endif %}
<span class="n">{% if found.p is not none %}p {{ number(found.p) }}, {% endif -%}
n = {{ found.n }}</span>{% endif %}</td>
{%- endmacro -%}
{%- macro table(id, head, columns, groups, threshold) -%}
<div class="wide" role="region" aria-labelledby="{{ id }}" tabindex="0">
<table>
<thead><tr><th scope="col">{{ head }}</th>
{% for name in columns %}<th scope="col">{{ name }}</th>{% endfor %}
{% if threshold %}<th scope="col">thresh&shy;old</th>{% endif %}</tr></thead>
{% for group in groups %}
<tbody{% if not group.title.startswith("stage") %} class="baseline"{% endif %}>
<tr><th class="group" scope="rowgroup" colspan="{{ columns | length + 2 }}">{{ group.title }}</th>
</tr>
{% for row in group.rows %}
<tr><th scope="row">{{ row.name }}</th>
{% for figure in row.figures.values() %}{{ estimate(figure) }}{% endfor %}
{% if threshold %}<td>{{ number(row.threshold, 2) }}
{% if not row.tuned %}<span class="note">not tuned</span>{% endif %}</td>{% endif %}</tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
{%- endmacro -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Where the attention lies: {{ names | length }} runs side by side</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<header>
<h1>{{ names | length }} runs side by side</h1>
<p class="soft">Bone X-ray classification with positive class activation maps:
{{ names | join("; ") }}</p>
</header>
<p>Every run is compared with the first, {{ first }}. For research; not a diagnosis.</p>
{% for remark in remarks %}<p class="missed">{{ remark }}</p>{% endfor %}

<h2 id="differences">Differences to {{ first }}</h2>
{% if gaps %}
<div class="wide" role="region" aria-labelledby="differences" tabindex="0">
<table>
<caption>The run's figure minus the first run's, film by film on the same films, with its 95 %
interval over patients and a two-sided test of no difference. Bold where 0 lies outside the
interval. The spread between trainings with other seeds is not in it, and nothing is corrected for
the number of comparisons.</caption>
<thead><tr><th scope="col">run</th>
{% for name in columns.values() %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
{% for title, runs in gaps %}
<tbody>
<tr><th class="group" scope="rowgroup" colspan="{{ columns | length + 1 }}">{{ title }}</th></tr>
{% for name, found in runs.items() %}
<tr><th scope="row">{{ name }}</th>
{% for key in columns %}{{ gap(found[key]) }}{% endfor %}</tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
{% else %}<p>None: see above.</p>{% endif %}

<h2 id="localization">Where the maps lie</h2>
{{ table("localization", "run", localization_names, localization, true) }}

<h2 id="classification">How well they classify</h2>
{{ table("classification", "run", classification_names, classification, false) }}

<h2 id="films">The films</h2>
{% if films %}
<p>The same {{ films | length }} marked film{{ "s" if films | length != 1 }} under the maps of every
run, those that most maps missed first; half of them, where there are as many, were chosen because
the last map of a run missed the lesion. How often each misses is in the table above, not in this
choice.</p>
{{ gallery(films, legend) }}
{% else %}<p>No film was drawn.</p>{% endif %}

<h2>What the figures mean</h2>
<dl class="terms">
{% for term, meaning in terms %}<div><dt>{{ term }}</dt><dd>{{ meaning }}</dd></div>
{% endfor %}
</dl>

<h2>What was run</h2>
{% for name, found in facts.items() %}
<h3>{{ name }}</h3>
<dl class="facts">
{% for key, value in found %}<dt>{{ key }}</dt><dd>{{ value }}</dd>{% endfor %}
</dl>
{% endfor %}
</main>
</body>
</html>
"""
)


def render(found: Comparison, panels: Sequence[Panel]) -> str:
    """The page as text; ``panels`` as `film_figure.draw` takes them."""
    facts = {
        name: [*sentences.facts(report), *_settings(found, name)]
        for name, report in found.reports.items()
    }
    context: dict[str, Any] = {
        "names": list(found.reports),
        "first": found.first,
        "style": Markup(STYLE),  # noqa: S704
        "dash": rows.DASH,
        "number": rows.number,
        "share": share,
        "remarks": found.remarks,
        "gaps": list(comparison_rows.gaps(found)),
        "columns": comparison_rows.differences(),
        "localization": comparison_rows.localization(found),
        "localization_names": tuple(rows.titles("map", "first").values()),
        "classification": comparison_rows.classification(found),
        "classification_names": tuple(rows.titles("decision", "first").values()),
        "films": [film(panel) for panel in film_figure.ordered(panels)],
        "legend": legend(),
        "terms": list(sentences.terms()),
        "facts": facts,
    }
    return environment().from_string(_PAGE).render(context)


def _settings(found: Comparison, name: str) -> list[tuple[str, str]]:
    """What the run's config has that the first's has not."""
    lines = found.settings.get(name, ())
    if name == found.first:
        return []
    return [("settings that differ from the first run's", "; ".join(lines) or "none")]
