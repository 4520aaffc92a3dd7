"""The HTML of report.html: no script, nothing from outside the file."""

MACROS = """
{%- macro estimate(figure, bar=true) -%}
<td>{% if figure.value is none %}{{ dash }}{% else -%}
<data value="{{ figure.value }}">{{ figure.text() }}</data>
{% if figure.interval() %}<span class="range">{{ figure.interval() }}</span>{% endif %}
{% if bar and figure.low is not none and figure.high is not none -%}
<span class="bar" aria-hidden="true">
<i style="left: {{ share(figure.low) }}%; right: {{ share(1 - figure.high) }}%"></i>
<b style="left: {{ share(figure.value) }}%"></b></span>{% endif %}
{%- endif %}{% if figure.n is not none %}
<span class="n">n = {{ figure.n }}</span>{% endif %}</td>
{%- endmacro -%}
{%- macro strokes(kind, path) -%}
{% if path %}<path class="halo" d="{{ path }}"/><path class="{{ kind }}" d="{{ path }}"/>{% endif %}
{%- endmacro -%}
{%- macro gallery(films, legend) -%}
<div class="key">
<div><img src="{{ legend.uri }}" alt="{{ legend.alt }}">
<div class="scale"><span>0</span><span>0.5</span><span>1</span></div>
{{ legend.text }}<br><span class="soft">upper half over black, lower over light grey</span></div>
<div><svg viewBox="0 0 24 24" aria-hidden="true">
{{- strokes("mark", "M4 12a8 6 0 1 0 16 0a8 6 0 1 0 -16 0Z") }}</svg>marked lesion</div>
<div><svg viewBox="0 0 24 24" aria-hidden="true">
{{- strokes("peak", "M5 12h5M14 12h5M12 5v5M12 14v5") }}</svg>peak of the map</div>
</div>
{% for film in films %}
<figure class="film">
<figcaption><strong>{{ film.title }}</strong>
{{ film.caption }}{{ "; " if film.caption and film.probabilities }}
{% if film.probabilities %}<span class="soft">{{ film.probabilities }}</span>{% endif %}
{% if film.missed %}<span class="line missed">missed by {{ film.missed }}</span>{% endif %}
</figcaption>
<div class="cells" style="--columns: {{ film.cells | length }}">
{% for cell in film.cells %}
<div class="cell"><div class="picture">
<img src="{{ cell.uri }}" alt="{{ cell.alt }}" width="{{ cell.width }}" height="{{ cell.height }}">
{% if cell.outline or cell.cross %}
<svg viewBox="0 0 {{ cell.width }} {{ cell.height }}" aria-hidden="true">
{{- strokes("mark", cell.outline) }}{{ strokes("peak", cell.cross) }}</svg>
{% endif %}
</div>
<p>{{ cell.name }}{% if cell.verdict %}:
<span{% if cell.missed %} class="missed"{% endif %}>{{ cell.verdict }}</span>{% endif %}</p></div>
{% endfor %}
</div>
</figure>
{% endfor %}
{%- endmacro -%}
"""

PAGE = (
    MACROS
    + """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Where the attention lies: evaluation of {{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<header>
<h1>Where the attention lies</h1>
<p class="soft">Bone X-ray classification with positive class activation maps: evaluation
of {{ title }}{% if date %}, {{ date }}{% endif %}</p>
</header>
<p class="lead">{{ measured }}</p>
{% if found %}<p class="lead">{{ found }}</p>{% endif %}
<p>{{ made }} For research; not a diagnosis.</p>

<h2 id="localization">Where the maps lie</h2>
{% if groups %}
<div class="wide" role="region" aria-labelledby="localization" tabindex="0">
<table>
<caption>Maps of the abnormal class against the marks. Each figure with its 95 % interval, drawn on
a scale from 0 to 1, and the number of films behind it. Baselines on grey.</caption>
<thead><tr><th scope="col">map</th>
{% for name in localization %}<th scope="col">{{ name }}</th>{% endfor %}
<th scope="col">thresh&shy;old</th></tr></thead>
{% for group in groups %}
<tbody{% if not group.title.startswith("stage") %} class="baseline"{% endif %}>
<tr><th class="group" scope="rowgroup" colspan="{{ localization | length + 2 }}">
{{ group.title }}</th></tr>
{% for row in group.rows %}
<tr><th scope="row">{{ row.name }}</th>
{% for figure in row.figures.values() %}{{ estimate(figure) }}{% endfor %}
<td>{% if row.threshold is none %}{{ dash }}{% else -%}
<data value="{{ row.threshold }}">{{ number(row.threshold, 2) }}</data>
{% if not row.tuned %}<span class="note">not tuned</span>{% endif %}{% endif %}</td></tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
{% else %}<p>Not measured: no evaluated film has a marked lesion.</p>{% endif %}

{% for table in more %}
<h3 id="more-{{ loop.index }}">{{ table.title }}</h3>
<div class="wide" role="region" aria-labelledby="more-{{ loop.index }}" tabindex="0">
<table class="dense">
<thead><tr><th scope="col">map</th>
{% for name in table.columns.values() %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
{% for group in table.groups %}
<tbody{% if not group.title.startswith("stage") %} class="baseline"{% endif %}>
<tr><th class="group" scope="rowgroup" colspan="{{ table.columns | length + 1 }}">
{{ group.title }}</th></tr>
{% for row in group.rows %}
<tr><th scope="row">{{ row.name }}</th>
{% for key in table.columns %}{{ estimate(row.figures[key], bar=false) }}{% endfor %}</tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
{% endfor %}

<h2 id="classification">How well it classifies</h2>
{% if classes %}
<div class="wide" role="region" aria-labelledby="classification" tabindex="0">
<table>
<caption>AUROC and accuracy per film, kappa per study, each with its 95 % interval.</caption>
<thead><tr><th scope="col">network</th>
{% for name in classification %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody class="flat">
{% for row in classes %}
<tr><th scope="row">{{ row.name }}</th>
{% for figure in row.figures.values() %}{{ estimate(figure) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% if more_classes %}
<h3 id="more-classes">Sensitivity, specificity, calibration</h3>
<div class="wide" role="region" aria-labelledby="more-classes" tabindex="0">
<table class="dense">
<thead><tr><th scope="col">network</th>
{% for name in more_classification.values() %}<th scope="col">{{ name }}</th>{% endfor %}
</tr></thead>
<tbody class="flat">
{% for row in more_classes %}
<tr><th scope="row">{{ row.name }}</th>
{% for figure in row.figures.values() %}{{ estimate(figure, bar=false) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% else %}<p>Not measured.</p>{% endif %}
{% if parts %}
<h3 id="parts">Kappa by body part</h3>
<div class="wide" role="region" aria-labelledby="parts" tabindex="0">
<table>
<thead><tr><th scope="col">body part</th>
{% for name in part_titles %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody class="flat">
{% for row in parts %}
<tr><th scope="row">{{ row.name }}</th>
{% for figure in row.figures.values() %}{{ estimate(figure, bar=false) }}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}

<h2 id="films">The films</h2>
{% if films %}
<p>The paper's Figure 2 for {{ films | length }} film{{ "s" if films | length != 1 }}: the film
as it is, then each map over it. Films where maps missed the lesion come first.
A map hits when its peak lies inside the mark. How often each map misses is in the table above, not
in this choice of films.</p>
{{ gallery(films, legend) }}
{% else %}<p>No film was drawn.</p>{% endif %}

<h2>How training went</h2>
{% for stage in curves %}
<h3>{{ stage.name }}{% if stage.cost %}: {{ stage.cost }}{% endif %}</h3>
<div class="curves">
{% for curve in stage.curves %}
<div role="img" aria-label="{{ curve.alt }}">{{ curve.svg }}</div>
{% endfor %}
</div>
{% else %}<p>No step was logged.</p>{% endfor %}

<h2>What the figures mean</h2>
<dl class="terms">
{% for term, meaning in terms %}<div><dt>{{ term }}</dt><dd>{{ meaning }}</dd></div>
{% endfor %}
</dl>

<h2>What was run</h2>
<dl class="facts">
{% for name, value in facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}
</dl>
{% if config %}
<details><summary>Configuration</summary><pre>{{ config }}</pre></details>
{% endif %}
<p class="soft">Method: J. Lu and K. Tong, Towards to Reasonable Decision Basis in Automatic Bone
X-Ray Image Classification: A Weakly-Supervised Approach, AAAI 2019.</p>
</main>
</body>
</html>
"""
)
