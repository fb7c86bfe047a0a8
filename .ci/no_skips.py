"""
Fail if a test run skipped tests: no_skips.py REPORT [REASON ...], where REPORT is pytest's --junitxml.

A skip whose message contains a REASON is listed and accepted: a program that this machine cannot have.
Tests that are expected to fail (xfail) count as run.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET


def main() -> None:
    """Read the report. Exit with 1 and a list if tests were skipped, or if no test ran."""
    report, *reasons = sys.argv[1:]
    cases = list(ET.parse(report).iter("testcase"))
    skipped = [
        f"{case.get('classname')}::{case.get('name')}: {skip.get('message')}"
        for case in cases
        for skip in case.iter("skipped")
        if skip.get("type") != "pytest.xfail"
    ]
    if not cases:
        sys.exit("no test ran")
    allowed = [line for line in skipped if any(reason in line for reason in reasons)]
    skipped = [line for line in skipped if line not in allowed]
    print(*allowed, sep="\n")
    if skipped:
        sys.exit("\n".join([f"{len(skipped)} of {len(cases)} tests were skipped:", *skipped]))
    print(f"{len(cases)} tests, {len(allowed) or 'none'} skipped")


if __name__ == "__main__":
    main()
