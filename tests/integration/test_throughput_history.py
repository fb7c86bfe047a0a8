"""What stores and workers moved is still known after the dashboard and the orchestrator were started again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.sample import make_store, random_files
from tests.unit.dashboard.support import Shown

from .dashboards import Dashboard, dashboard
from .processes import Fleet, until

SIZE = 10_000
FILES = 100


def moved(shown: Dashboard) -> dict[str, dict[str, str]]:
    """Return the bytes of each store and worker on the page: name -> direction -> text, without what did not move."""
    found = {}
    for row in Shown(shown.page("/throughput").body).rows[1:]:
        name, *_ = row.values()
        totals = {
            key: total[1] for key, text in row.items() if (total := re.search(r"([\d.]+ \w+) in all", text))
        }
        if totals:
            found[name] = totals
    return found


@contextmanager
def front(fleet: Fleet, folder: Path) -> Iterator[Dashboard]:
    """Run an orchestrator and a dashboard."""
    with fleet.orchestrator(), dashboard(folder, fleet.url) as shown:
        yield shown


def test_throughput_of_stores_and_workers_survives_restarts(redis_url: str, tmp_path: Path) -> None:
    fleet = Fleet(redis_url, tmp_path)
    ids = [make_store(tmp_path / "a", random_files(FILES, size=SIZE, seed=seed)) for seed in (1, 2)]

    def sync(number: int) -> None:
        ended = fleet.sync("--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", ids[number])
        assert ended.code == 0, ended.err

    def totals(size: str) -> dict[str, dict[str, str]]:
        stores = {f"file://{tmp_path}/a": {"Read": size}, f"file://{tmp_path}/b": {"Written": size}}
        return stores | {"one@node": {"Moved": size}}

    with fleet.worker("one@node"):
        with front(fleet, tmp_path) as shown:
            sync(0)
            # Each process of the worker reports by itself, every few seconds.
            until(lambda: moved(shown) == totals("1.0 MB"), "the worker has reported")
        # Nothing of the first orchestrator and dashboard is left, and nothing moves meanwhile.
        with front(fleet, tmp_path) as shown:
            assert moved(shown) == totals("1.0 MB")
            sync(1)
            until(lambda: moved(shown) == totals("2.0 MB"), "the worker reports to the same record")
