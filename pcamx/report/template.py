"""The HTML and the style of report.html: no script, nothing from outside the file."""

STYLE = """
:root { --ink: #1b1e23; --soft: #5a626c; --rule: #d5d9de; --mark: #0a4f7d; --bad: #8f2d00; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); line-height: 1.55;
  font: 1rem/1.55 "Source Serif 4", Charter, "Bitstream Charter", Cambria, Georgia, serif; }
main { max-width: 78rem; margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem; }
h1, h2, h3, table, figcaption, dl, .cell, .key, details, nav, .curves { font-family: Inter,
  "Segoe UI", "Helvetica Neue", Helvetica, Arial, "DejaVu Sans", "Liberation Sans", sans-serif; }
h1 { font-size: clamp(1.5rem, 1.1rem + 1.6vw, 2.1rem); line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { max-width: 46rem; orphans: 3; widows: 3; }
.lead { font-size: 1.12rem; }
.soft, .n { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums;
  line-height: 1.35; }
caption { text-align: left; color: var(--soft); padding: 0 0 .5rem; max-width: 46rem; }
th, td { text-align: left; vertical-align: top; padding: .38rem 1.5rem .38rem 0; }
th:first-child { padding-left: .5rem; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; white-space: nowrap; }
tbody + tbody { border-top: 1px solid var(--rule); }
tbody th { font-weight: 400; }
tbody.flat tr + tr { border-top: 1px solid var(--rule); }
tbody th.group { font-weight: 650; padding-top: .7rem; padding-bottom: 0; }
tbody.baseline { background: #f5f6f7; }
td data { font-weight: 600; font-size: 1rem; }
td .range, td .n { white-space: nowrap; font-size: .82rem; }
td .n, td .note { display: block; }
td .note { color: var(--soft); font-size: .82rem; }
.bar { position: relative; display: block; width: 10.5rem; height: 7px; margin: .2rem 0 .1rem;
  background: linear-gradient(#e3e6ea, #e3e6ea) center / 100% 1px no-repeat; }
.bar i { position: absolute; top: 2px; height: 3px; background: #7fb3d3; }
.bar b { position: absolute; top: -1px; width: 3px; height: 9px; margin-left: -1.5px;
  background: var(--mark); }
dl.terms { columns: 2 24rem; column-gap: 3rem; font-size: .92rem; margin: 0; }
dl.terms div { break-inside: avoid; padding-bottom: .7rem; }
dl.terms dt { font-weight: 650; }
dl.terms dd { margin: 0; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem;
  font-size: .9rem; margin: 0; }
dl.facts dt { color: var(--soft); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr));
  gap: 1rem 2rem; }
.curves svg { width: 100%; height: auto; max-width: 38rem; display: block; }
.key { display: flex; flex-wrap: wrap; gap: .6rem 2rem; font-size: .85rem; align-items: center;
  margin: 1rem 0; }
.key img { display: block; width: 15rem; height: 1.4rem; border: 1px solid var(--rule); }
.key .scale { display: flex; justify-content: space-between; width: 15rem; }
.key svg { width: 1.6rem; height: 1.6rem; background: #33302f; vertical-align: middle;
  margin-right: .4rem; }
figure { margin: 0; }
.film { padding: 1rem 0 1.2rem; border-top: 1px solid var(--rule); break-inside: avoid; }
.film figcaption { font-size: .88rem; margin-bottom: .5rem; overflow-wrap: anywhere; }
.film figcaption strong { display: block; font-size: .95rem; }
.cells { display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fill, minmax(min(10.5rem, 46%), 1fr)); }
.cell { font-size: .84rem; line-height: 1.3; }
.cell p { margin: .3rem 0 0; }
.line { display: block; }
.missed { font-weight: 700; color: var(--bad); }
.picture { position: relative; background: #000; }
.picture img { display: block; width: 100%; height: auto; }
.picture svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.halo, .mark, .peak { fill: none; vector-effect: non-scaling-stroke; }
.halo { stroke: #000; stroke-opacity: .55; stroke-width: 2.8px; }
.mark { stroke: #56b4e9; stroke-width: 1.5px; }
.peak { stroke: #fff; stroke-width: 1.4px; }
pre { overflow-x: auto; font-size: .8rem; line-height: 1.4; background: #f5f6f7; padding: .8rem; }
summary { cursor: pointer; }
@media (max-width: 40rem) {
  table { font-size: .8rem; } td data { font-size: .9rem; } td .range, td .n { font-size: .72rem; }
  main { padding-left: .8rem; padding-right: .8rem; } thead th { white-space: normal; }
  th, td { padding-right: .45rem; } th:first-child { padding-left: .25rem; } .bar { width: 4.4rem; }
  td .range { display: block; }
  dl.facts { grid-template-columns: 1fr; gap: 0; } dl.facts dd { margin-bottom: .5rem; }
}
@media print {
  @page { margin: 14mm; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  html { font-size: 10pt; } main { padding: 0; max-width: none; } .wide { overflow: visible; }
  .cells { grid-template-columns: repeat(var(--columns), 1fr); gap: .3rem; }
  .cell { font-size: 7.5pt; } .film { padding: .5rem 0; } .film figcaption { font-size: 8pt; }
  .film figcaption strong { font-size: 9pt; } h2, h3 { break-after: avoid; }
  h2 { margin-top: 1.6rem; } table { font-size: 8.5pt; } td data { font-size: 9.5pt; }
  tbody, tr, .curves > div { break-inside: avoid; } th, td { padding-top: .2rem;
  padding-bottom: .2rem; } details { display: none; }
}
"""

PAGE = """
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
<!DOCTYPE html>
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
{% else %}<p>No film was drawn.</p>{% endif %}

<h2>How training went</h2>
{% for stage in curves %}
<h3>Stage {{ stage.name }}{% if stage.cost %}: {{ stage.cost }}{% endif %}</h3>
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
