"""
What a job with a budget has spent: bytes, objects and money, across all workers.

*counted once*: each batch reports absolute figures, and the totals of the job move by the difference to the last report
of the batch. So a report may be repeated, and a batch that is begun again continues from its last report.
*bounded*: the figures of a batch are kept until the batch is accounted for, then only in the totals.
"""

from __future__ import annotations

from snapferry.workers.ledger import scripts
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.keys import BUDGET_FIELD, batch_name, job_key
from snapferry.workers.ledger.state import Spent
from snapferry.workers.messages import BatchMessage, Budget


class BudgetLedger(LedgerBase):
    """The budgets of jobs, and what was spent of them. Every method may be repeated with the same arguments."""

    def budget(self, job_id: str) -> Budget | None:
        """Return the budget of a job, None if it has none."""
        found = self._redis.hget(job_key(job_id), BUDGET_FIELD)
        return Budget.model_validate_json(found) if found else None

    def spend(
        self,
        batch: BatchMessage,
        budget: Budget,
        *,
        copied_bytes: int,
        in_flight: int,
        objects: int,
        cost: int,
        over: str = "",
        run: str = "",
    ) -> Spent:
        """
        Record what all runs of *batch* together have spent so far, and return what the job has spent.

        *copied_bytes* are the bytes of the *objects* that were copied, *in_flight* those of objects that are being
        copied. *cost* is in millionths. *over* names the total that the next piece or object would exceed: then the
        *budget* of the job is exceeded. *run* is the run of a worker that joined *batch*, whose figures are apart.
        """
        cost_limit = None if budget.max_cost is None else round(budget.max_cost * 1_000_000)
        limits = (budget.max_bytes, budget.max_objects, cost_limit)
        arguments: list[str | float] = [
            _spender(batch, run),
            copied_bytes,
            in_flight,
            objects,
            cost,
            self._expires_s,
        ]
        arguments += ["" if limit is None else limit for limit in limits]
        record = [job_key(batch.job_id), job_key(batch.job_id, "spent")]
        (exceeded, *totals), own = self._run(scripts.SPEND, record, [*arguments, over])
        copied_bytes, _, copied_objects, batch_cost = map(int, own.split() or (0, 0, 0, 0))
        size_bytes, total_objects, total_cost = (int(total or 0) for total in totals)
        return Spent(
            exceeded, size_bytes, total_objects, total_cost, copied_bytes, copied_objects, batch_cost
        )

    def forget_spending(self, batch: BatchMessage, run: str = "") -> None:
        """Remove the figures of *batch*, or of a *run* that joined it, at its end. The totals of its job keep them."""
        self._redis.hdel(job_key(batch.job_id, "spent"), _spender(batch, run))

    def over_budget(self, job_id: str) -> Spent | None:
        """Return what a job has spent if that exceeds its budget, else None."""
        names = ("over", "spent_bytes", "spent_objects", "spent_cost")
        over, *totals = self._redis.hmget(job_key(job_id), names)
        size_bytes, objects, cost = (int(total or 0) for total in totals)
        return Spent(str(over), size_bytes, objects, cost) if over else None


def _spender(batch: BatchMessage, run: str) -> str:
    return f"{batch_name(batch)}+{run}" if run else batch_name(batch)
