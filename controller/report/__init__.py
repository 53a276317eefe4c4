"""One HTML file that says what a run was and what came of it.

    run folder ──▶ contents (forgives what is missing) ──▶ curves · grids · mesh (SVG) ──▶ page (HTML) ──▶ report.html

The file stands alone: no scripts, no fonts, nothing fetched, so that it can be mailed and still opens in ten years.
matplotlib is imported only while the curves are drawn.
"""

from photonloop.controller.report.write import write_report

__all__ = ["write_report"]
