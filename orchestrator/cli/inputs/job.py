"""The argument JOB: a job of the fleet, by its id."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from pydantic import ValidationError

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.orchestrator.cli.fleet_access import on_fleet
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.jobs import JobRefused
from snapferry.workers.ledger import UnknownJob, UnreadableJob
from snapferry.workers.settings.broker_url import shown


def with_job(run: Callable[..., Any]) -> Callable[..., Any]:
    """
    Return *run* with the argument JOB and the option --broker in place of its arguments *jobs* and *job_id*.

    A job that does not exist, or refuses what *run* asks of it, ends the command with `EXIT_USAGE`.
    """

    @wraps(run)
    def opening(job: str, broker: str | None, **given: Any) -> Any:
        settings = read_settings(broker)
        with on_fleet(settings, advice="If its work is still needed, submit it again.") as jobs:
            try:
                job_id = jobs.find(job)
                jobs.status(job_id)
            except UnreadableJob:
                raise
            except UnknownJob:
                usage(
                    f"job {job[:80]} not found at {shown(settings.broker_url or '')}: it was never submitted there, or"
                    " its record expired. List the jobs: snapferry jobs"
                )
            except JobRefused as error:
                usage(str(error))
            try:
                return run(jobs=jobs, job_id=job_id, **given)
            except JobRefused as error:
                usage(str(error))
            except ValidationError:
                usage(
                    f"job {job_id} cannot be read: another version of snapferry submitted it. Use that version."
                )

    return opening
