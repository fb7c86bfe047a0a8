"""
Operators for Airflow 3.3 and later: a task submits a job to a fleet, frees its slot, and ends as the job ends.

    from snapferry.airflow import SnapferrySyncOperator

    SnapferrySyncOperator(task_id="copy", source="live", destination="backup", snapshots="latest")

Only this module imports Airflow. It imports the rest of snapferry when a task runs, so that reading a DAG stays fast.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

try:
    from airflow.sdk import BaseHook, BaseOperator
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        TaskDeferralError,
        TaskDeferralTimeout,
    )
    from airflow.triggers.base import BaseTrigger, TriggerEvent
except ImportError as error:
    raise ImportError(
        f"snapferry.airflow needs Airflow 3.3 or later in the same environment: {error}"
    ) from error

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context

    from .orchestrator.client import Client, Job, JobStatus

__all__ = [
    "JobTrigger",
    "SnapferryHealOperator",
    "SnapferryOperator",
    "SnapferryPullOperator",
    "SnapferryPushOperator",
    "SnapferrySyncOperator",
    "SnapferryVerifyOperator",
]

# Progress is logged at most so often, in seconds.
_LOG_EVERY_S: Final = 30.0

# Airflow's worker reports that a task has been deferred up to its heartbeat interval of 5 s late. Airflow takes a task
# that has been resumed before that report for one that died, so a trigger fires no earlier than this after its start.
_EARLIEST_S: Final = 10.0

# The triggerer's thread must not wait for the broker, and other triggers share its default threads.
_THREADS: Final = ThreadPoolExecutor(4, thread_name_prefix="snapferry")


class SnapferryOperator(BaseOperator):
    """
    A task that is one job of a fleet: what all operators of this module have in common.

    *conn_id* is the Airflow connection with the fleet's Redis; without it, ``SNAPFERRY_BROKER_URL`` of the processes of
    Airflow. *options* are those of the method of `Client` with the operator's name, such as ``{"priority": "high",
    "limits": {"rate": 20_000_000}}``. A *deferrable* task frees its slot and waits in the triggerer, which looks at
    the job every *poll_interval*. With *cancel_on_kill*, the job is cancelled when the task is killed, cleared, marked,
    or runs into its ``execution_timeout``.

    Each attempt of a task instance takes up the same job. If that one failed or was cancelled, it is resumed, so only
    the rest is done. A task that is cleared after its end is a new job. The result is the job's JSON document; the
    XCom ``job_id`` is there as soon as the job is submitted.

    Raises AirflowException if the job failed, and AirflowFailException, which is not retried, if somebody cancelled it
    or the request is wrong.
    """

    template_fields: Sequence[str] = ("conn_id", "options")
    action: str
    """The method of `Client`."""
    arguments: Sequence[str] = ()
    """The names of the fields that are the method's arguments."""

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        options: Mapping[str, Any] | None = None,
        deferrable: bool = True,
        poll_interval: timedelta = timedelta(seconds=5),
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.options = options
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.cancel_on_kill = cancel_on_kill
        self._job_id = ""
        self._killed = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the job or take it up; then wait for its end here, or in the triggerer."""
        with self._client() as client:
            job = self._submitted(client, context)
            self._job_id = job.id
            context["ti"].xcom_push("job_id", job.id)
            if self.deferrable and not job.status().state.final:
                self.defer(
                    trigger=JobTrigger(
                        job_id=job.id,
                        conn_id=self.conn_id,
                        poll_s=self.poll_interval.total_seconds(),
                        cancel_on_kill=self.cancel_on_kill,
                    ),
                    method_name="execute_complete",
                    timeout=self.execution_timeout,
                )
            progress = _Progress()
            for status in job.events(poll_s=self.poll_interval.total_seconds()):
                if line := progress.line(status):
                    self.log.info("%s", line)
            return self._ended(job.document())

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """End the task as the job ended, which the trigger found."""
        return self._ended(event)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the trigger. A task that waited longer than its ``execution_timeout`` cancels its job."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            self._job_id = context["ti"].xcom_pull(key="job_id", task_ids=self.task_id) or ""
            self.on_kill()
            raise
        except TaskDeferralError as error:
            raise AirflowException(
                f"the trigger failed; the next attempt takes up the job: {error}"
            ) from error

    def on_kill(self) -> None:
        """Cancel the job, if the task has one and *cancel_on_kill* is set."""
        if self._job_id and self.cancel_on_kill:
            self._killed = True
            # Another client: this may run in a signal handler, in the middle of a method of the first one.
            with self._client() as client:
                client.job(self._job_id).latest().cancel()
            self.log.info("job %s cancelled", self._job_id)

    def _submitted(self, client: Client, context: Context) -> Job:
        from .orchestrator.client import InvalidStoreURL, StoreError

        given = {name: getattr(self, name) for name in self.arguments}
        job_id = self._id(context, given)
        if found := client.take_up(job_id):
            self.log.info("job %s taken up", found.id)
            return found
        try:
            job: Job = getattr(client, self.action)(**given, **(self.options or {}), job_id=job_id)
        except (InvalidStoreURL, TypeError, ValueError) as error:
            raise AirflowFailException(f"wrong request: {error}") from error
        except StoreError as error:
            raise AirflowException(f"the snapshot cannot be looked up: {error}") from error
        self.log.info("job %s submitted", job.id)
        return job

    def _id(self, context: Context, given: Mapping[str, Any]) -> str:
        """
        Return the id of the job: the same for all attempts of a task instance until it is cleared.

        The request is part of it, so that two Airflows with one fleet and the same names do not share a job by mistake.
        """
        ti = context["ti"]
        # Airflow raises the number of tries when a task instance is cleared, and only then.
        cleared = ti.max_tries - self.retries
        request = [self.action, given, self.options or {}]
        parts = [ti.dag_id, ti.task_id, ti.run_id, ti.map_index, cleared, request]
        return str(
            uuid.uuid5(uuid.NAMESPACE_URL, f"airflow:{json.dumps(parts, sort_keys=True, default=str)}")
        )

    def _ended(self, document: dict[str, Any]) -> dict[str, Any]:
        job, state = document["job"], document["state"]
        if state == "done":
            self.log.info("job %s is done", job)
            return document
        if state == "cancelled" and not self._killed:
            raise AirflowFailException(f"job {job} was cancelled")
        why = f": {document['error']}" if document["error"] else ""
        raise AirflowException(f"job {job} is {state}{why}. Its failed objects: snapferry failures {job}")

    def _client(self) -> Client:
        from .orchestrator.client import Client

        return Client(None if self.conn_id is None else broker_url(BaseHook.get_connection(self.conn_id)))


class SnapferrySyncOperator(SnapferryOperator):
    """Copies *snapshots* from one store to another, by default all: `Client.sync`."""

    action = "sync"
    arguments = ("source", "destination", "snapshots")
    template_fields = (*SnapferryOperator.template_fields, *arguments)

    def __init__(
        self,
        *,
        source: str,
        destination: str,
        snapshots: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.destination = destination
        self.snapshots = snapshots


class SnapferryPushOperator(SnapferryOperator):
    """Makes a snapshot of the directory *path* of the fleet's workers: `Client.push`."""

    action = "push"
    arguments = ("path", "destination", "tag", "exclude")
    template_fields = (*SnapferryOperator.template_fields, *arguments)

    def __init__(
        self, *, path: str, destination: str, tag: str = "", exclude: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.destination = destination
        self.tag = tag
        self.exclude = exclude


class SnapferryPullOperator(SnapferryOperator):
    """Writes the files of *snapshot* into the directory *path* of the fleet's workers: `Client.pull`."""

    action = "pull"
    arguments = ("source", "snapshot", "path", "delete")
    template_fields = (*SnapferryOperator.template_fields, *arguments)

    def __init__(self, *, source: str, snapshot: str, path: str, delete: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.snapshot = snapshot
        self.path = path
        self.delete = delete


class SnapferryVerifyOperator(SnapferryOperator):
    """Reads the objects of *snapshots* again, by default all of *store*; fails if one is wrong: `Client.verify`."""

    action = "verify"
    arguments = ("store", "snapshots")
    template_fields = (*SnapferryOperator.template_fields, *arguments)

    def __init__(self, *, store: str, snapshots: str | Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.store = store
        self.snapshots = snapshots


class SnapferryHealOperator(SnapferryOperator):
    """Replaces wrong and missing objects of *store* by those of *sources*: `Client.heal`."""

    action = "heal"
    arguments = ("store", "sources", "snapshots")
    template_fields = (*SnapferryOperator.template_fields, *arguments)

    def __init__(
        self,
        *,
        store: str,
        sources: Sequence[str],
        snapshots: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.store = store
        self.sources = sources
        self.snapshots = snapshots


class JobTrigger(BaseTrigger):
    """
    Follows a job in the triggerer, logs its progress, and fires when it has ended, with its JSON document.

    Goes on through an outage of the broker. Fails if the broker no longer has the job's record.
    """

    def __init__(
        self, *, job_id: str, conn_id: str | None = None, poll_s: float = 5.0, cancel_on_kill: bool = True
    ) -> None:
        super().__init__()
        self.job_id = job_id
        self.conn_id = conn_id
        self.poll_s = poll_s
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes the trigger again, in another process: nothing secret, since Airflow keeps it."""
        kwargs = {name: getattr(self, name) for name in ("job_id", "conn_id", "poll_s", "cancel_on_kill")}
        return f"{type(self).__module__}.{type(self).__name__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once, when the job has ended."""
        from .orchestrator.client import BrokerUnavailable

        earliest = time.monotonic() + _EARLIEST_S
        broker = await self._broker()
        progress = _Progress()
        while True:
            try:
                status, document = await _in_thread(partial(_look, broker, self.job_id))
            except BrokerUnavailable as error:
                self.log.warning("waiting for the broker: %s", error)
            else:
                if line := progress.line(status):
                    self.log.info("%s", line)
                if document is not None:
                    await asyncio.sleep(max(0.0, earliest - time.monotonic()))
                    yield TriggerEvent(document)
                    return
            await asyncio.sleep(self.poll_s)

    async def on_kill(self) -> None:
        """Cancel the job, because somebody cleared or marked the task while it waited here."""
        if self.cancel_on_kill:
            broker = await self._broker()
            await _in_thread(lambda: _shared_client(broker).job(self.job_id).latest().cancel())
            self.log.info("job %s cancelled", self.job_id)

    async def _broker(self) -> str | None:
        return None if self.conn_id is None else broker_url(await BaseHook.aget_connection(self.conn_id))


def broker_url(connection: Connection) -> str:
    """
    Return the URL of the Redis that an Airflow connection names.

    The key ``broker`` of its extra field is a whole URL, for Sentinel, sockets and TLS options. Otherwise the type is
    ``redis`` or ``rediss``, and the schema is the number of the database.
    """
    if whole := connection.extra_dejson.get("broker"):
        return str(whole)
    scheme = "rediss" if connection.conn_type == "rediss" or connection.extra_dejson.get("ssl") else "redis"
    login = quote(connection.login or "", safe="")
    password = f":{quote(connection.password, safe='')}" if connection.password else ""
    at = f"{login}{password}@" if login or password else ""
    database = connection.schema or connection.extra_dejson.get("db") or 0
    return f"{scheme}://{at}{connection.host}:{connection.port or 6379}/{database}"


class _Progress:
    """What to log of a job: each state it reaches, and its progress every half minute."""

    def __init__(self) -> None:
        self._state = ""
        self._at = 0.0

    def line(self, status: JobStatus) -> str:
        """Return a line, "" if it is too early for one."""
        from .orchestrator.client import status_line

        now = time.monotonic()
        if status.state == self._state and now < self._at + _LOG_EVERY_S:
            return ""
        self._state, self._at = status.state, now
        return status_line(status)


@cache
def _shared_client(broker: str | None) -> Client:
    """Return the client of all triggers of this process. It keeps one connection for each thread."""
    from .orchestrator.client import Client

    return Client(broker)


def _look(broker: str | None, job_id: str) -> tuple[JobStatus, dict[str, Any] | None]:
    """Return how a job stands, and if it has ended, its document."""
    job = _shared_client(broker).job(job_id)
    status = job.status()
    return status, job.document() if status.state.final else None


async def _in_thread(call: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(_THREADS, call)
