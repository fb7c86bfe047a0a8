"""
Flower's settings for a fleet of snapferry, in the form in which Flower reads them (its ``--conf``).

Where it listens, who may look, what may be changed and how much is remembered
is said by `snapferry.orchestrator.cli.commands.flower`. What neither says can be set by Flower's
own variables, ``FLOWER_<OPTION>``.
"""

from __future__ import annotations

import ast
import re
from typing import Any

# What is remembered outlives a restart. Saving holds up the pages for as long as it takes, so it is not done often;
# it is done at the end as well, so that only a crash of Flower itself loses what came since.
persistent = True
state_save_interval = 300_000  # milliseconds

# `args` says in words what a task is about; `uuid` is the column that leads to the page of a task. The longest is the
# last, for it is never wrapped; its beginning is shown as the result too.
tasks_columns = "name,args,state,result,uuid,received,runtime,worker,retries,exception"

# Workers that were not heard of for a day are gone for good, and so are their metrics.
purge_offline_workers = 86_400  # seconds

_RAISED = re.compile(r"(\w+)\((.*?),?\)", re.DOTALL)

# Errors whose words are ours and complete: their name, and the way on which they came, say nothing more.
_SPOKEN = ("ObjectsFailed", "JobFailed", "RuntimeError")


def format_task(task: Any) -> Any:
    """Return *task*, which is a copy, as the pages show it: words, without the marks of Python around them."""
    task.result = _text(task.result)
    raised = _RAISED.fullmatch(task.exception or "")
    if raised:
        name, said = raised[1], _text(raised[2])
        task.exception = said if name in _SPOKEN else f"{name}: {said}"
        if name in _SPOKEN:
            task.traceback = None
        if task.state == "SUCCESS":
            task.exception = f"in the end it was done; before: {task.exception}"
        else:
            task.result = task.exception
    return task


def _text(shown: str | None) -> str | None:
    """Return the text of which *shown* is Python's notation; anything else as it is."""
    try:
        found = ast.literal_eval(shown or "")
    except (ValueError, SyntaxError):
        return shown
    return found if isinstance(found, str) else shown
