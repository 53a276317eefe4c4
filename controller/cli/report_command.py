"""`photonloop report`: write the HTML report of a run, finished or not."""

from __future__ import annotations

import argparse

from photonloop.controller.cli.printing import print_json, print_lines
from photonloop.controller.report import write_report
from photonloop.controller.runs.provenance import open_run


def run(args: argparse.Namespace) -> int:
    """Write the report and print its path."""
    open_run(args.run)
    report = write_report(args.run)
    if args.json:
        print_json({"run": str(args.run), "report": str(report)})
    else:
        print_lines(str(report))
    return 0
