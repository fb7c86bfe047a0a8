"""The files that use the metrics, and the page that explains them, against the metrics that are exported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from snapferry.orchestrator.reporting.fleet_metrics import ASKED
from snapferry.workers.telemetry.metrics.catalogue import (
    BUILD_INFO,
    COUNTED,
    DELIVERY_ENDS,
    ORCHESTRATORS,
    Metric,
)
from tests.scrape import promtool

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
ALERTS_TEST = ROOT / "deploy/prometheus/alerts_test.yml"
DASHBOARD = ROOT / "deploy/grafana/snapferry.json"

EXPORTED: dict[str, Metric] = {
    metric.name: metric for metric in (*COUNTED, *ASKED.values(), BUILD_INFO, ORCHESTRATORS)
}


def names_in(expression: str) -> set[str]:
    """Return the names of metrics in a PromQL *expression*; of a histogram, the name without its suffix."""
    found = set(re.findall(r"\bsnapferry_[a-z0-9_]+\b", re.sub(r'"[^"]*"', '""', expression)))
    histograms = {name for name, metric in EXPORTED.items() if metric.kind == "histogram"}
    return {
        base if (base := re.sub(r"_(bucket|sum|count)$", "", name)) in histograms else name for name in found
    }


def labels_in(expression: str) -> set[tuple[str, str]]:
    """Return the pairs of a metric's name and a label that it is asked for."""
    return {
        (name, label)
        for part, braces in re.findall(r"(snapferry_[a-z0-9_]+)\{([^}]*)\}", expression)
        for name in names_in(part)
        for label in re.findall(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"', braces)
    }


def alert_rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_alerts_ask_for_nothing_that_is_not_exported() -> None:
    unknown = {
        name: rule["alert"] for rule in alert_rules() for name in names_in(rule["expr"]) - EXPORTED.keys()
    }

    assert not unknown


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    assert {name for expression in expressions() for name in names_in(expression)} == EXPORTED.keys()


def test_alerts_and_dashboard_ask_for_labels_that_their_metrics_have() -> None:
    asked = {
        pair
        for text in [*expressions(), *(rule["expr"] for rule in alert_rules())]
        for pair in labels_in(text)
    }

    assert ("snapferry_workers", "role") in asked
    assert {(name, label) for name, label in asked if label not in {*EXPORTED[name].labels, "job"}} == set()


def test_names_and_labels_follow_the_conventions_and_are_bounded() -> None:
    for name, metric in EXPORTED.items():
        assert name.startswith("snapferry_")
        assert name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        # Nothing that grows with what is copied, nor with who copies it.
        assert not {"job", "job_id", "snapshot", "path", "bucket", "worker", "host"} & set(metric.labels)


def test_every_alert_has_a_test_words_and_a_severity() -> None:
    tests = ALERTS_TEST.read_text()

    for rule in alert_rules():
        assert rule["alert"] in tests
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}


def test_every_panel_has_a_place_of_its_own_a_description_and_a_legend() -> None:
    found = dashboard()["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in found:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in found}) == len(found)
    for panel in panels():
        assert panel["description"]
        for target in panel["targets"]:
            assert target["legendFormat"] or panel["type"] == "table"
            # Every figure is of the scrape jobs that were chosen, and from the data source that was.
            assert target["expr"].count('job=~"$job"') == len(re.findall(r"snapferry_\w+\{", target["expr"]))
            assert target["datasource"]["uid"] == "${datasource}"


def test_the_page_of_metrics_has_a_row_for_each() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].startswith("`snapferry_"):
            name, kind, labels, by, meaning = cells
            assert meaning
            rows[name.strip("`")] = (kind, tuple(re.findall(r"`(\w+)`", labels)), by)

    assert rows == {
        name: (metric.kind, metric.labels, ", ".join(metric.roles)) for name, metric in EXPORTED.items()
    }
    assert all(f"`{end}`" in text for end in DELIVERY_ENDS)


def test_promtool_accepts_the_alert_rules_and_their_tests_pass() -> None:
    assert f"{len(alert_rules())} rules found" in promtool("check", "rules", str(ALERTS))
    assert "SUCCESS" in promtool("test", "rules", str(ALERTS_TEST))


def test_promtool_accepts_the_configuration() -> None:
    assert "SUCCESS" in promtool("check", "config", str(ROOT / "deploy/prometheus/prometheus.yml"))


def test_promtool_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m").replace("$job", ".+")}
        for number, text in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


@pytest.mark.parametrize(
    ("expression", "names", "labels"),
    [
        ("sum(snapferry_jobs{state='x'})", {"snapferry_jobs"}, set()),
        (
            'rate(snapferry_no_such{a="snapferry_text"}[5m])',
            {"snapferry_no_such"},
            {("snapferry_no_such", "a")},
        ),
        ("snapferry_batch_duration_seconds_bucket", {"snapferry_batch_duration_seconds"}, set()),
        ("snapferry_objects_count", {"snapferry_objects_count"}, set()),
    ],
)
def test_names_and_labels_are_found_in_expressions(
    expression: str, names: set[str], labels: set[tuple[str, str]]
) -> None:
    assert (names_in(expression), labels_in(expression)) == (names, labels)
