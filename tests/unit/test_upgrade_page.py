"""What the page on upgrades promises to keep has the names that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import snapferry
from snapferry.orchestrator.recovery import document
from snapferry.orchestrator.reporting import receipt
from snapferry.stores.urls import registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "upgrade.md").read_text()
PROMISES = dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \| .+ \|$", PAGE, re.MULTILINE))


def test_each_interface_has_a_promise() -> None:
    assert set(PROMISES) == {
        "command line", "JSON documents", "receipts and exports", "settings", "messages and records in Redis",
        "stores", "Python", "plug-ins", "metrics", "logs",
    }  # fmt: skip


def test_the_promise_of_the_python_api_names_what_the_package_exports() -> None:
    named = re.findall(r"`(?:snapferry\.)?([A-Z]\w+)`", PROMISES["Python"])
    assert named == snapferry.__all__


def test_the_promise_of_formats_names_those_that_are_written() -> None:
    assert set(re.findall(r"`(snapferry\.\w+/\d+)`", PROMISES["receipts and exports"])) == {
        receipt.SCHEMA, document.SCHEMA
    }  # fmt: skip


def test_the_promise_of_plug_ins_names_the_entry_point() -> None:
    assert f"`{registry.GROUP}`" in PROMISES["plug-ins"]


def test_what_the_changelog_says_to_do_before_an_upgrade_is_in_the_notes() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    before = changelog.partition("\n### Before you upgrade\n")[2].partition("\n### ")[0]
    # The notes of the version that comes or came last are the first ones, as in the changelog.
    notes = re.split(r"\n## To (?:the next version|version [\d.]+)\n", PAGE)[1].partition("\n### ")[0]
    # Names that an action needs: settings, options, endpoints of commands.
    names = set(
        re.findall(r"`(--[a-z-]+|[A-Z][A-Z_]{5,}|-A [\w.]+|snapferry\.unacked|allow-[a-z-]+)", before)
    )

    assert len(names) > 5
    assert [name for name in sorted(names) if name not in notes] == []
