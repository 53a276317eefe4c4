"""The report's style sheet: one column, light or dark as the reader's screen, always light on paper."""

_LIGHT = """
  --paper: #ffffff; --ink: #1d2126; --muted: #606a75; --line: #d9dee4; --soft: #f4f6f8;
  --accent: #1f6fb2; --second: #d9822b; --up: #c8452f; --down: #2368b0; --guide: #c9d0d8; --on: #ffffff;
"""

_DARK = """
  --paper: #14171b; --ink: #e6e9ec; --muted: #98a2ad; --line: #333a42; --soft: #1d2227;
  --accent: #5aa9e6; --second: #f0a04b; --up: #f27d63; --down: #6db3f2; --guide: #414a54; --on: #0c1116;
"""

STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 1120px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif;
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }}
h1 {{ font-size: 2rem; line-height: 1.2; margin: 0; font-weight: 650; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: .9rem; border-top: 1px solid var(--line); font-weight: 620; }}
h3 {{ font-size: 1rem; margin: 1.75rem 0 .5rem; font-weight: 620; }}
p {{ margin: .4rem 0 .8rem; max-width: 46rem; }}
.wide {{ max-width: none; }}
.lead {{ color: var(--muted); margin-top: .35rem; max-width: none; }}
.muted, figcaption, .note {{ color: var(--muted); }}
.remark {{ border-left: 3px solid var(--second); background: var(--soft); padding: .5rem .9rem;
  margin: .75rem 0; max-width: none; }}
.tiles {{ display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0 0; padding: 0; }}
.tiles div {{ flex: 1 1 9.5rem; background: var(--soft); border-radius: 8px; padding: .8rem 1rem; }}
.tiles dt {{ color: var(--muted); font-size: .85rem; }}
.tiles dd {{ margin: .1rem 0 0; font-size: 1.5rem; font-weight: 620; font-variant-numeric: tabular-nums; }}
.tiles .first {{ background: var(--accent); }}
.tiles .first dt, .tiles .first dd {{ color: var(--on); }}
figure {{ margin: .5rem 0 1rem; }}
figcaption {{ font-size: .85rem; margin-top: .25rem; }}
.panels {{ display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .5rem 1.25rem; }}
.panels figure {{ margin: 0; }}
.panels figcaption {{ margin: 0 0 .25rem; color: var(--ink); }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ font-family: inherit !important; }}
svg.matrix text {{ font-size: 11px; fill: var(--ink); text-anchor: middle; dominant-baseline: central;
  font-variant-numeric: tabular-nums; }}
svg.matrix text.end {{ text-anchor: end; }}
svg.matrix text.start {{ text-anchor: start; }}
svg.matrix text.muted {{ fill: var(--muted); }}
svg.matrix text.on {{ fill: var(--on); }}
.hit {{ fill: var(--accent); }}
.miss {{ fill: var(--up); }}
.up {{ fill: var(--up); }}
.down {{ fill: var(--down); }}
.guide {{ stroke: var(--guide); stroke-width: 2; fill: none; }}
svg.scale {{ width: 15rem; max-width: 100%; margin: .6rem 0 0; overflow: visible; }}
svg.scale text {{ font-size: 8px; fill: var(--muted); text-anchor: middle; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }}
th {{ font-weight: 600; color: var(--muted); white-space: nowrap; }}
td {{ overflow-wrap: anywhere; }}
td.time, td.kind {{ white-space: nowrap; }}
td.time {{ font-variant-numeric: tabular-nums; color: var(--muted); }}
td ul {{ margin: 0; padding-left: 1.1rem; }}
.beside {{ display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 0 2.5rem; align-items: start; }}
.panels + .panels {{ margin-top: .8rem; }}
.pair {{ display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 2.5rem; align-items: start; }}
pre {{ background: var(--soft); border-radius: 8px; padding: .9rem 1.1rem; margin: 0; overflow-x: auto;
  font: .82rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
@media screen and (max-width: 720px) {{ .pair, .beside, .panels {{ grid-template-columns: 1fr; }} }}
@media print {{
  body {{ padding: 0; font-size: 10.5pt; }}
  .tiles div {{ flex-basis: 6rem; padding: .6rem .7rem; }}
  .tiles dd {{ font-size: 1.2rem; }}
  h2, h3 {{ break-after: avoid; }}
  figure, .panels, tr, .tiles {{ break-inside: avoid; }}
  pre {{ white-space: pre-wrap; }}
  @page {{ margin: 15mm; }}
}}
"""
