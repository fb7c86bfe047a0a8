"""
Flower in a real browser: a job of which an object is corrupt at the source can be followed, and the reason be read.

With SNAPFERRY_SCREENSHOTS=docs/images the pictures of the documentation are made anew.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.flower_views import EXCEPTION_SHOWN
from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.sample import make_store, random_files

from .dashboards import dashboard
from .flowers import PASSWORD, Flower, flower
from .processes import PATIENCE_S, Fleet, until

DESK = {"width": 1600, "height": 560}


@pytest.fixture
def stores() -> Iterator[Path]:
    """A folder for stores, with a path that does not fill the pictures."""
    with tempfile.TemporaryDirectory(prefix="stores-") as folder:
        yield Path(folder)


@contextmanager
def tab(browser: Any, pages: Flower) -> Iterator[Any]:
    """Open a tab as the operator."""
    user, _, password = PASSWORD.partition(":")
    context = browser.new_context(
        viewport=DESK, http_credentials={"username": user, "password": password}, color_scheme="light"
    )
    wrong: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    try:
        yield page
        assert wrong == []
    finally:
        context.close()


def picture(page: Any, name: str) -> None:
    """Take a picture for the documentation, if that is asked for."""
    if folder := os.environ.get("SNAPFERRY_SCREENSHOTS"):
        page.mouse.move(0, 0)
        page.screenshot(path=str(Path(folder) / f"flower-{name}.png"))


def rows(page: Any) -> list[dict[str, str]]:
    """Return what the table of tasks shows: column -> text, row by row."""
    heads = page.locator("#tasks-table_wrapper .dataTables_scrollHead th").all_inner_texts()
    names = [head.strip().lower() for head in heads]
    found = []
    for row in page.locator("#tasks-table tbody tr").all():
        cells = [cell.strip() for cell in row.locator("td").all_inner_texts()]
        if len(cells) == len(names):
            found.append(dict(zip(names, cells, strict=True)))
    return found


def test_a_failed_task_tells_its_reason_in_the_browser(
    chromium: Any, redis_url: str, tmp_path: Path, stores: Path
) -> None:
    snapshot = make_store(stores / "a", random_files(499, size=40_000))
    objects = sorted((stores / "a" / ".objects").rglob("?" * 55))
    corrupt = objects[123]
    corrupt.write_bytes(b"not what it was")
    address = "".join(corrupt.relative_to(stores / "a" / ".objects").parts)
    fleet = Fleet(redis_url, tmp_path)
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=50))
    with (
        flower(redis_url, tmp_path) as pages,
        fleet.orchestrator("--hostname", "orchestrator@node-1"),
        fleet.worker("worker-1@node-2"),
        fleet.worker("worker-2@node-3"),
        tab(chromium, pages) as page,
    ):
        job_id = jobs.submit(JobSpec.of(*store_pair(str(stores / "a"), str(stores / "b")), [snapshot]))
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)
        assert (status.state, status.failed) == (State.FAILED, 1)
        until(lambda: len(pages.tasks(state="FAILURE")) == 2, "Flower has seen which tasks failed")
        until(lambda: len(pages.tasks(state="SUCCESS")) >= 10, "and which did not")
        assert {task["root_id"] for task in pages.tasks()} == {job_id}

        page.goto(pages.url + "/tasks")
        search = page.get_by_role("searchbox")
        search.fill(f"args:{job_id[:8]}")
        shown = until(
            lambda: (found := rows(page)) and len(found) >= 12 and found, "the job's tasks are shown"
        )
        wide = page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.dataTables_scrollHead th')]"
            ".map(head => [head.dataset.column, head.getBoundingClientRect()]))"
        )
        for column in ("state", "uuid", "args", "exception"):
            assert wide[column]["right"] <= DESK["width"], f"{column} is out of sight"
        picture(page, "tasks")
        batches = {row["args"]: row for row in shown if row["name"] == "snapferry.copy_batch"}
        head = f"job {job_id[:8]} · {snapshot[:6]}…"
        assert len(batches) == 10
        assert all(
            re.fullmatch(re.escape(head) + r" · batch \d+/10 · 50 objects · 2\.0 MB", name)
            for name in batches
        )
        results = [row["result"] for row in batches.values() if row["state"] == "SUCCESS"]
        assert len(results) == 9
        assert all(re.fullmatch(r"50 copied, 0 present, [\d.]+ MB in [\d.]+ s", one) for one in results)
        plan = next(row for row in shown if row["name"] == "snapferry.plan_job")
        assert plan["result"].startswith("1 snapshot, 500 objects, 20.0 MB in 10 batches")

        # As the dashboard links to it: the tasks of one job that failed.
        page.goto(pages.url + f"/tasks?state=FAILURE%20args%3A{job_id[:8]}")
        failed = until(lambda: (found := rows(page)) and len(found) == 2 and found, "those that failed")
        batch = next(row for row in failed if row["name"] == "snapferry.copy_batch")
        assert batch["exception"].startswith("IntegrityError: ")
        assert len(batch["exception"]) <= EXCEPTION_SHOWN
        commit = next(row for row in failed if row["name"] == "snapferry.commit_snapshots")
        assert commit["exception"].startswith("1 of 500 objects could not be copied; ")

        page.locator("#tasks-table tbody tr", has_text="copy_batch").locator("a[href*='/task/']").click()
        page.wait_for_url("**/task/*")
        details = page.locator(".detail-list").inner_text()
        assert re.search(rf"IntegrityError: .* · object {address[:8]}… at file://{stores}/a", details)
        assert "49 copied, 0 present, 1 FAILED, " in details
        assert f"snapferry failures {job_id[:8]}" in details
        assert "Traceback" not in details
        page.set_viewport_size({"width": 1100, "height": 1010})
        picture(page, "task")

        # From any task, also the commit that is called as errback, to the first task of the job, and on to the reason.
        page.goto(pages.url + f"/task/{commit['uuid']}")
        page.locator(".detail-row", has_text="Root id").get_by_role("link").click()
        page.wait_for_url(f"**/task/{job_id}")
        reason = re.compile(r"batch \d+/10 · 50 objects · 2\.0 MB: IntegrityError: ")
        said = page.locator(".detail-list").inner_text()
        assert "2 tasks of the job failed" in said
        assert reason.search(said), "the page of the job has the reason itself"
        children = page.locator(".detail-row", has_text="Children").get_by_role("link")
        # The cause, and then the consequence.
        assert [link.get_attribute("title") for link in children.all()] == [batch["uuid"], commit["uuid"]]

        page.goto(pages.url + "/")
        page.get_by_text("worker-1@").first.wait_for()
        online = page.locator("tbody .badge", has_text="Online")
        until(lambda: online.count() == 3, "the fleet is there")


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1000, 1600])
def test_two_clicks_lead_from_the_id_of_a_job_to_the_reason(
    chromium: Any, redis_url: str, tmp_path: Path, stores: Path, width: int
) -> None:
    """As docs/watch.md describes it: from a search for the id, and from the page of the job on the dashboard."""
    snapshot = make_store(stores / "a", random_files(99, size=100))
    sorted((stores / "a" / ".objects").rglob("?" * 55))[42].write_bytes(b"not what it was")
    fleet, jobs = Fleet(redis_url, tmp_path), Jobs(Settings(broker_url=redis_url, batch_objects=50))
    with (
        flower(redis_url, tmp_path) as pages,
        fleet.orchestrator(),
        fleet.worker(),
        tab(chromium, pages) as page,
    ):
        page.set_viewport_size({"width": width, "height": 900})
        failed, unplanned = (
            jobs.submit(JobSpec.of(*store_pair(str(stores / source), str(stores / "b")), [snapshot]))
            for source in ("a", "nowhere")
        )
        for job_id in (failed, unplanned):
            assert jobs.wait(job_id, timeout_s=PATIENCE_S).state is State.FAILED
        until(lambda: len(pages.tasks(state="FAILURE")) == 3, "Flower has seen which tasks failed")

        def search(job_id: str) -> None:
            page.goto(pages.url + "/tasks")
            page.get_by_role("searchbox").fill(job_id)
            until(lambda: len(found := rows(page)) == 1 and job_id[:8] in found[0]["args"], "its first task")

        def click(link: Any, task_id: str) -> str:
            assert 0 <= link.bounding_box()["x"] < width, "it is in sight"
            link.click()
            page.wait_for_url(f"**/task/{task_id}")
            return str(page.locator(".detail-list").inner_text())

        (batch,) = (task for task in pages.tasks(state="FAILURE") if task["name"] == "snapferry.copy_batch")
        link = page.locator("#tasks-table tbody a[href*='/task/']")
        search(failed)
        click(link, failed)
        children = page.locator(".detail-row", has_text="Children").get_by_role("link")
        assert "IntegrityError: " in click(children.first, batch["uuid"])

        # The plan itself failed: its page has the reason, and does not lead to itself.
        search(unplanned)
        assert "StoreNotFound: " in click(link, unplanned)
        assert children.count() == 0

        with dashboard(tmp_path, redis_url, "--flower", pages.url) as shown:
            page.goto(f"{shown.url}/jobs/{failed}")
            page.get_by_text("Failed tasks in Flower").click()
            page.wait_for_url("**/tasks?**")
            until(lambda: len(rows(page)) == 2, "the tasks that failed")
            row = page.locator("#tasks-table tbody tr", has_text="batch").locator("a[href*='/task/']")
            assert "IntegrityError: " in click(row, batch["uuid"])
