"""What the first request would wait for, done before the server answers."""

from __future__ import annotations

import logging

from snapferry.workers.broker.connection import BrokerUnavailable

from . import zones
from .pages import compile_templates
from .views.job import job_page
from .views.jobs import jobs_page
from .views.schedules import schedules_page
from .views.sources import Sources
from .views.traffic import traffic_page
from .views.workers import workers_page

log = logging.getLogger(__name__)


def prepare(sources: Sources) -> None:
    """
    Compile the templates, read all jobs, and compute what each page shows once.

    So the first request finds connections, scripts in Redis, and the index of the jobs. An outage leaves that to it.
    """
    zones.choices(zones.DEFAULT)
    compile_templates()
    try:
        jobs = jobs_page(sources, {})
        # The page of a job that failed would begin to look up paths.
        for line in [line for line in jobs["lines"] if not line.status.failed][:1]:
            job_page(sources, line.status.job_id)
        workers_page(sources)
        schedules_page(sources)
        traffic_page(sources)
    except BrokerUnavailable as error:
        log.debug("pages not prepared: %s", error)
    except Exception:
        # The page that cannot be made will say so; the others can.
        log.exception("pages not prepared")
