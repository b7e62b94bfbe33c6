"""``python -m hostile``: all cases, or those of some families, and the table of them."""

from __future__ import annotations

import argparse
import sys
import time

from hostile.case import USUAL_S
from hostile.families import all_cases, cross_section
from hostile.runner import Outcome, run, table


def tell(outcome: Outcome) -> None:
    problems = outcome.problems
    if problems or wordy:
        print(
            f"{'WRONG' if problems else 'right'} {outcome.case.family}: {outcome.case.name} "
            f"[{outcome.code}, {outcome.seconds:.1f} s, {outcome.peak_mb:.0f} MB] {'; '.join(problems)}",
            flush=True,
        )


parser = argparse.ArgumentParser(
    prog="hostile", description="Hostile files and calls against the real server."
)
parser.add_argument("--family", action="append", help="only families whose name begins so; repeatable")
parser.add_argument("--case", help="only cases whose name holds this")
parser.add_argument(
    "--sample", action="store_true", help="the cross-section that every change is tested with"
)
parser.add_argument("--quick", action="store_true", help="none of the cases that may take long")
parser.add_argument("--verbose", action="store_true", help="a line for every case")
parser.add_argument("--at-once", type=int, default=2, help="families at once")
asked = parser.parse_args()
wordy = asked.verbose
cases = cross_section() if asked.sample else all_cases()
cases = [
    case
    for case in cases
    if not asked.family or case.family.lower().startswith(tuple(f.lower() for f in asked.family))
]
cases = [case for case in cases if not asked.case or asked.case in case.name]
cases = [case for case in cases if not asked.quick or case.seconds <= USUAL_S]
started = time.monotonic()
outcomes = run(cases, together=asked.sample, at_once=asked.at_once, tell=tell)
print(table(outcomes))
wrong = sum(bool(outcome.problems) for outcome in outcomes)
print(
    f"{len(outcomes)} cases, {asked.at_once} families at once, in {time.monotonic() - started:.0f} s, {wrong} with something wrong"
)
sys.exit(bool(wrong))
