"""Inject every fault of every transport into virtual instruments, and check the reaction of the bench.

    python scripts/fault_matrix.py [--json] [--small]

A bench of 4 ports drives virtual instruments in another thread, over a TCP socket with a text protocol (VISA), over a
serial line, and over Modbus TCP. A fault happens to one message ("once"), or to all of them until it is removed
("lasting"; not with --small). There are three phases:

    apply   the message that sets voltages. The Modbus instrument is a readout, which sets no voltages. There it is the
            message that writes its ranges, after the connection was lost.
    read    the message that measures.
    idle    the first message, or the instrument itself, while no call is running. The bench finds the fault at its
            next check.

There are two good outcomes:

    retry-and-continue   the call returned, and the virtual instruments hold the voltages that were set.
    clean stop           one sentence names the instrument, heaters are at 0 V and the light is off. After the fault was
                         removed and cleared, the same bench works again.

The column "heaters safe" is read from the virtual instruments, not from the bench:

    at once                 heaters were at 0 V when the call returned, and the bench reported it.
    at once, unconfirmed    heaters were at 0 V, but no answer of the source could be understood. The bench must not
                            count them as safe, and must report that. It counted them as safe at its first check after
                            the fault was removed.
    once it answered again  the source carried out no commands, so it could not be set to 0 V. It was at 0 V after the
                            first check after the fault was removed, before the user cleared the fault.

A source that carries out commands but cannot be understood ("late", "garbage") must never end as the last of these.

Detectors show the number of their measurement instead of light, so that every reading can be traced. It must be the
last measurement of its setting and sample, at their voltages, within the call. All other readings are counted as stale.
A call that takes longer than its exchanges may (`photonloop.drivers.transports`) is counted as a hang. The exit code is
1 if there is a stale reading, a hang, or any other outcome.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path

from fault_cases import AT_ONCE, CONTINUED, FAULTS, LATER, PHASES, SETUPS, UNCONFIRMED, Case, run_case

from photonloop.simulator.emulators.running import running
from photonloop.simulator.parameters import load_chip


def cases(*, small: bool) -> Iterator[Case]:
    """Run all cases and yield their results one by one."""
    for setup in SETUPS:
        with running(load_chip("ideal", ports=4, stages=1, seed=0), setup.choices, stamped=True) as virtual:
            for lasting, fault, phase in product((False,) if small else (False, True), FAULTS[:-1] if small else FAULTS, PHASES):
                with tempfile.TemporaryDirectory() as folder:  # a case that hangs keeps its locks
                    yield run_case(setup, virtual, fault, phase, lasting=lasting, locks=Path(folder))


def print_row(case: Case) -> None:
    """Print a row of the table, and details on standard error if the case failed."""
    cells = (case.transport, case.fault, case.times, case.phase, case.instrument, case.outcome, case.safe)
    print("|", " | ".join(cells), f"| {case.seconds:.2f} |", flush=True)
    if not case.good:
        print(f"  {case}", file=sys.stderr)


def print_summary(done: list[Case], hangs: int, stale: int, seconds: float) -> None:
    """Print the totals below the table."""
    traced = sum(case.readings for case in done)
    print(f"\n{len(done)} cases, {hangs} hangs, {stale} of {traced} readings stale, {seconds:g} s")
    counted = Counter(case.safe or CONTINUED for case in done)
    print("heaters safe: " + "; ".join(f"{counted[words]} {words}" for words in (CONTINUED, AT_ONCE, UNCONFIRMED, LATER)))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--small", action="store_true", help="only faults that happen once, without the instruments' own errors")
    options = parser.parse_args(arguments)
    logging.getLogger("drivers").setLevel(logging.CRITICAL)  # the table reports every fault
    began_s = time.perf_counter()
    done: list[Case] = []
    if not options.json:
        print("| transport | fault | times | phase | instrument | outcome | heaters safe | seconds |\n" + "|---" * 8 + "|")
    for case in cases(small=options.small):
        done.append(case)
        if not options.json:
            print_row(case)
    hangs, stale = sum(case.hangs for case in done), sum(case.stale for case in done)
    seconds = round(time.perf_counter() - began_s, 1)
    if options.json:
        print(json.dumps({"cases": [asdict(case) for case in done], "hangs": hangs, "stale": stale, "seconds": seconds}))
    else:
        print_summary(done, hangs, stale, seconds)
    return 0 if all(case.good for case in done) else 1


if __name__ == "__main__":
    sys.exit(main())
