"""The manual pages: made from the help of the commands, current, and without faults."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.unit.test_commands_alike import LINES, command

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = ROOT / "docs/man"

# Pages have no date: it would change them at each release.
ACCEPTED: Final = "missing date"


def test_the_pages_are_current() -> None:
    made = subprocess.run(
        [sys.executable, ".ci/manual.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (made.returncode, made.stderr) == (0, "")


def test_every_command_has_a_page() -> None:
    wanted = {"snapferry.1", *(f"snapferry-{name.replace(' ', '-')}.1" for name in LINES)}

    assert {path.name for path in PAGES.iterdir()} == wanted


@pytest.mark.parametrize("name", LINES)
def test_a_page_has_every_option_and_example_of_its_command(name: str) -> None:
    page = (PAGES / f"snapferry-{name.replace(' ', '-')}.1").read_text()
    plain = re.sub(r"\\f[BIR]|\\&", "", page)
    for escape, character in (("\\-", "-"), ("\\(aq", "'"), ("\\(ti", "~"), ("\\e", "\\")):
        plain = plain.replace(escape, character)
    found = command(name)
    for parameter in found.params:
        for option in parameter.opts:
            if option.startswith("-") and option != getattr(parameter, "alias", ""):
                assert re.search(rf"^(-., )?{option}\b", plain, re.MULTILINE), option
    examples = re.findall(r"^ +(snapferry .*)$", f"{found.help}\n{found.epilog or ''}", re.MULTILINE)
    for example in examples:
        assert example in plain


@pytest.mark.parametrize("name", sorted(LINES.keys() - {"version"}))
def test_every_command_has_an_example_that_calls_it(name: str) -> None:
    assert re.search(rf"^ +(\S+ )?.*\bsnapferry {name}\b", command(name).epilog or "", re.MULTILINE)


def test_the_pages_have_no_faults() -> None:
    if shutil.which("mandoc") is None:
        # CI accepts no skipped test, so there it is never missing.
        pytest.skip("there is no mandoc; on Debian and Ubuntu: apt-get install mandoc")
    ended = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", *sorted(PAGES.glob("*.1"))],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert [line for line in ended.stdout.splitlines() if ACCEPTED not in line] == []


def test_no_page_has_characters_that_an_old_terminal_lacks() -> None:
    for path in PAGES.iterdir():
        assert path.read_text().isascii(), path.name
