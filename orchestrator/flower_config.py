"""
Flower's settings for a fleet of snapferry, in the form in which Flower reads them (its ``--conf``).

The command (`snapferry.orchestrator.cli.run.flower`) sets address, login, control and the number of remembered
tasks. Other options can be set by Flower's own variables, ``FLOWER_<OPTION>``.
"""

from __future__ import annotations

import ast
import re
from typing import Any

# The remembered tasks survive a restart. Saving blocks the pages, so it is not done often. Flower also saves when it
# stops, so only a crash of Flower loses the tasks since the last save.
persistent = True
state_save_interval = 300_000  # milliseconds

# Only `uuid` links to the page of the task, so it is in sight also on a narrow screen. `args` begins with the job and
# says what the task does. The first four columns fit into 1,600 pixels.
tasks_columns = "state,uuid,args,exception,name,result,received,runtime,worker,retries"

# Workers without an event for a day are removed, with their metrics.
purge_offline_workers = 86_400  # seconds

_RAISED = re.compile(r"(\w+)\((.*?),?\)", re.DOTALL)

# Errors of snapferry with a complete message: their name and traceback add nothing.
_SPOKEN = ("ObjectsFailed", "JobFailed", "RuntimeError")


def format_task(task: Any) -> Any:
    """Return *task*, which is a copy, as the pages show it: plain text instead of Python's notation."""
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
    """Return the string that *shown* is the Python literal of; return anything else unchanged."""
    try:
        found = ast.literal_eval(shown or "")
    except (ValueError, SyntaxError):
        return shown
    return found if isinstance(found, str) else shown
