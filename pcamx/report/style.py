"""The style of report.html, on a screen and in print."""

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
caption { text-align: left; color: var(--soft); padding: 0 0 .5rem; max-width: min(46rem, 86vw); }
th, td { text-align: left; vertical-align: top; padding: .38rem 1.5rem .38rem 0; }
th:first-child { padding-left: .5rem; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; white-space: nowrap; }
tbody + tbody { border-top: 1px solid var(--rule); }
tbody th { font-weight: 400; }
tbody.flat tr + tr { border-top: 1px solid var(--rule); }
tbody th.group { font-weight: 650; padding-top: .7rem; padding-bottom: 0; }
.dense th, .dense td { padding-right: .9rem; } .dense thead th { white-space: normal; }
.dense td .range { display: block; }
tbody.baseline { background: #f5f6f7; }
td data { font-weight: 600; font-size: 1rem; }
td data.unclear { font-weight: 400; }
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
