"""The page of a failed job whose record comes from an export."""

from __future__ import annotations

from snapferry.orchestrator.dashboard.views.job import job_page
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.recovery.collect import export
from snapferry.orchestrator.recovery.restore import import_export
from snapferry.orchestrator.reporting.text.failures import IMPORTED
from snapferry.workers.ledger import Ledger, State
from tests.unit.ledger.support import request

from .support import Shown, page


def test_failed_objects_that_are_not_known_are_not_promised(sources: Sources, ledger: Ledger) -> None:
    ledger.create(request("job"))
    ledger.advance("job", State.PLANNING)
    ledger.advance(
        "job", State.FAILED, objects_total=3, failed=2, cause="ObjectMissing", error="2 objects failed"
    )
    document = export(ledger)
    ledger.client.flushall()
    import_export(ledger, document)

    values = job_page(sources, "job")

    assert values["failures"]["total"] == 2
    assert values["failures"]["notes"] == [IMPORTED]
    shown = Shown(page("job.html", **values))
    assert IMPORTED in shown.text
    assert "looked up" not in shown.text
    assert "snapferry resume job" in shown.text
