"""What a Prometheus would read: a scrape, its samples, and the checker of metrics, rules and configurations."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """The answer of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._families = list(text_string_to_metric_families(text))

    def names(self) -> set[str]:
        """Return the names of all metrics, counters with their ``_total``."""
        return {family.name + "_total" * (family.type == "counter") for family in self._families}

    def kinds(self) -> dict[str, str]:
        """Return name -> type."""
        return {family.name + "_total" * (family.type == "counter"): family.type for family in self._families}

    def labels(self, name: str) -> Iterator[dict[str, str]]:
        """Yield the labels of each sample, ``le`` left out."""
        for family in self._families:
            if name.removesuffix("_total") == family.name:
                for sample in family.samples:
                    yield {key: value for key, value in sample.labels.items() if key != "le"}

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples called *name* that have these *labels*. Raises KeyError where there is none."""
        found = [
            sample.value
            for family in self._families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        if not found:
            raise KeyError(f"{name} {labels} is not in:\n{self.text}")
        return sum(found)


def scrape(port: int, timeout_s: float = 20.0) -> Scrape:
    """Return what is exported at a loopback *port*."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout_s) as answer:
        return Scrape(answer.read().decode())


def promtool(*arguments: str, stdin: str = "") -> str:
    """Run promtool; return what it said. Fails the test if it is not content, skips it where there is no promtool."""
    program = shutil.which("promtool", path=str(Path(sys.executable).parent)) or shutil.which("promtool")
    if program is None:
        # CI accepts no skipped test, so there it is never missing.
        pytest.skip("there is no promtool; on Debian and Ubuntu: .ci/promtool .venv/bin")
    ended = subprocess.run(
        [program, *arguments], input=stdin, capture_output=True, text=True, timeout=240, check=False
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    return said
