"""The HTML report of a run.

    run folder ─▶ run_contents ─▶ page_sections, with drawings as SVG ─▶ html_page, templates ─▶ report.html

A report can be written at any time. Missing or damaged files of the run are named in the report.
The HTML file is self-contained: it has no scripts and loads neither fonts nor other files.
matplotlib is imported only when curves are drawn.
"""

from photonloop.controller.report.report_writer import write_report

__all__ = ["write_report"]
