"""
Jobs: submit one, see how it stands, cancel it. The Python API of snapferry.

    jobs = Jobs(Settings.from_environment())
    job_id = jobs.submit(source, destination, snapshot_id)
    jobs.wait(job_id)

A submitted job needs its submitter no longer: the fleet carries it on.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from stores.address import parse_address
from stores.errors import InvalidStoreURL
from stores.urls import parse_url
from workers.connection import OUTAGE, BrokerUnavailable, check_broker, client, shown
from workers.ledger import JobStatus, Ledger
from workers.messages import JobRequest, StoreRef
from workers.settings import Settings, store_options
from workers.transfer import Failure

from .app import make_fleet_app
from .dispatch import submit_plan

POLL_S = 0.05

# How long `Jobs.wait` goes on without an answer from the broker.
OUTAGE_S = 120.0


class Jobs:
    """
    The jobs of one fleet. *settings* must name a broker.

    Raises `workers.settings.InvalidSettings`; with *check*, also
    `workers.connection.BrokerUnavailable` within 10 seconds if the broker does
    not answer or would lose tasks.
    """

    def __init__(self, settings: Settings, *, check: bool = True) -> None:
        self._settings = settings
        self._app: Celery = make_fleet_app(settings)
        if check:
            check_broker(settings.broker_url or "")
        assert settings.broker_url is not None  # the app refuses settings without one
        self._broker = settings.broker_url
        self._ledger = Ledger(client(self._broker, retries=1), expires_s=settings.job_expires)

    def submit(
        self,
        source: StoreRef,
        destination: StoreRef,
        snapshot_id: str,
        *,
        concurrency: int | None = None,
        dry_run: bool = False,
    ) -> str:
        """
        Queue the copy of a snapshot; return the job's id.

        Raises `InvalidAddress` and `InvalidStoreURL` before anything is
        queued, `BrokerUnavailable` if the broker does not take it. Called
        again, it makes another job, which finds the work of the first done.
        """
        parse_address(snapshot_id)
        request = JobRequest(
            job_id=str(uuid.uuid4()),
            snapshot_id=snapshot_id,
            source=source,
            destination=destination,
            concurrency=concurrency,
            dry_run=dry_run,
            batch_objects=self._settings.batch_objects,
            batch_bytes=self._settings.batch_bytes,
        )
        with self._answering():
            self._ledger.create(request)
            submit_plan(self._app, request)
        return request.job_id

    def status(self, job_id: str) -> JobStatus:
        """Return where the job stands now. Raises `workers.ledger.UnknownJob`."""
        return self._ledger.status(job_id)

    def failures(self, job_id: str) -> list[Failure]:
        """Return the objects that could not be copied, the first thousand of them."""
        return self._ledger.failures(job_id)

    def cancel(self, job_id: str) -> None:
        """
        Ask for the job to stop. Running copies stop within seconds; what is copied stays.

        Raises `BrokerUnavailable`. May be called again.
        """
        with self._answering():
            self._ledger.cancel(job_id)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OperationalError) as error:
            raise BrokerUnavailable(
                f"the broker at {shown(self._broker)} does not take it: {type(error).__name__}: {error}"
            ) from error

    def wait(
        self,
        job_id: str,
        watch: Callable[[JobStatus], None] = lambda _: None,
        *,
        check: Callable[[], None] = lambda: None,
        timeout_s: float | None = None,
    ) -> JobStatus:
        """
        Return the job's final status, calling *watch* with each status on the way.

        *check* is called before each look and may raise. A broker that is away
        is waited for, `OUTAGE_S` seconds at most: then `BrokerUnavailable`. The
        job itself goes on. After *timeout_s* seconds returns the status as it
        is, final or not.
        """
        began = last_seen = time.monotonic()
        while True:
            check()
            try:
                status = self.status(job_id)
            except OUTAGE as error:
                if time.monotonic() - last_seen > OUTAGE_S:
                    raise BrokerUnavailable(
                        f"the broker at {shown(self._broker)} has not answered for {OUTAGE_S:.0f} s; job {job_id}"
                        " goes on when it is back"
                    ) from error
                continue
            last_seen = time.monotonic()
            watch(status)
            if status.state.final or (timeout_s is not None and last_seen - began > timeout_s):
                return status
            time.sleep(POLL_S)


def store_pair(
    from_url: str, to_url: str, from_objects: str | None = None, to_objects: str | None = None
) -> tuple[StoreRef, StoreRef]:
    """
    Read both sides of a copy, each with what the environment adds to its URLs.

    Raises `InvalidStoreURL`, also where both sides are one store.
    """
    for_source, for_destination = store_options("from"), store_options("to")
    here = parse_url(from_url).with_defaults(**for_source)
    there = parse_url(to_url).with_defaults(**for_destination)
    if here.same_place(there):
        raise InvalidStoreURL("", str(here).split("?", 1)[0], "is both source and destination")
    source_pool = str(parse_url(from_objects).with_defaults(**for_source)) if from_objects else None
    destination_pool = str(parse_url(to_objects).with_defaults(**for_destination)) if to_objects else None
    return (
        StoreRef(url=str(here), objects_url=source_pool),
        StoreRef(url=str(there), objects_url=destination_pool),
    )
