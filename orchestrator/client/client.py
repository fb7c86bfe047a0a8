"""A fleet, as a Python program sees it."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self, Unpack

from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.faults import one_line
from snapferry.workers.job_state import DISMISSED, SUPERSEDED
from snapferry.workers.ledger import State, UnknownJob
from snapferry.workers.messages import JobSpec, VerifyOptions
from snapferry.workers.settings.access import access_policy
from snapferry.workers.settings.environment import InvalidSettings, Settings

from .job import Job
from .requests import Ids, JobOptions, Patterns, Place, Places, Requests, SyncOptions

# A cancelled job ends within half of this time, if an orchestrator runs.
_CANCEL_S: Final = 60


class Client:
    """
    A fleet to which jobs are submitted.

    *broker* is the URL of its Redis server, by default ``SNAPFERRY_BROKER_URL``. Other settings come from *settings*,
    by default from the environment. Raises `InvalidSettings` without a broker, and `BrokerUnavailable` if it does not
    answer.

    A store is a URL, a path, or a name in `snapferry.toml`. A relative path has a slash, such as ``./store``, or is an
    object of `pathlib`. It begins at the working directory of this process, and workers get it as an absolute path.
    Stores are opened by the workers and orchestrators of the fleet, with their rights. This process opens one only to
    look up ids that are not given in full, and to name the paths of failed objects: what its configuration allows.

    Methods that submit return at once. The program may end: the fleet completes the job. They raise
    `InvalidStoreURL`, other `StoreError` if a snapshot is not found, ValueError for wrong options, and
    `BrokerUnavailable`; then nothing is queued, unless the message says that it may be. A second call queues a second
    job, which finds what the first one copied.
    """

    def __init__(self, broker: str | None = None, *, settings: Settings | None = None) -> None:
        found = Settings.from_environment(broker_url=broker) if settings is None else settings
        if settings is not None and broker is not None:
            found = settings.model_copy(update={"broker_url": broker})
        if found.broker_url is None:
            raise InvalidSettings("no broker: give its URL, or set SNAPFERRY_BROKER_URL")
        access = access_policy(found, "this program")
        self._jobs = Jobs(found, access=access, role="this program")
        self._requests = Requests(found, access)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the broker. Jobs go on. May be called again."""
        self._jobs.close()

    def sync(
        self,
        source: Place,
        destination: Place,
        snapshots: Ids = None,
        *,
        from_objects: Place | None = None,
        to_objects: Place | None = None,
        **options: Unpack[SyncOptions],
    ) -> Job:
        """
        Copy *snapshots* from one store to another, by default all; as ``snapferry submit``.

        *from_objects* and *to_objects* are stores that hold the objects of several stores.
        """
        return self._queued(
            self._requests.sync(source, destination, snapshots, from_objects, to_objects, **options)
        )

    def push(
        self,
        path: Place,
        destination: Place,
        *,
        tag: str = "",
        exclude: Patterns = (),
        follow: bool = True,
        **options: Unpack[JobOptions],
    ) -> Job:
        """
        Make a snapshot of the directory *path*, which the workers must reach under this name; as ``snapferry push``.

        A relative path, or ``~`` at the beginning of a text, means a directory of this process.

        *tag* is the name that the snapshot gets. *exclude* is one or several regular expressions. Links are
        followed if *follow*.
        """
        return self._queued(self._requests.push(path, destination, tag, exclude, follow=follow, **options))

    def pull(
        self,
        source: Place,
        snapshot: str,
        path: Place,
        *,
        delete: bool = False,
        linked: bool = False,
        **options: Unpack[JobOptions],
    ) -> Job:
        """
        Write the files of *snapshot* into the directory *path* of the workers; as ``snapferry pull``.

        A relative path, or ``~`` at the beginning of a text, means a directory of this process.

        With *delete*, other files there are removed. With *linked*, files share their blocks with a local store.
        """
        return self._queued(
            self._requests.pull(source, snapshot, path, delete=delete, linked=linked, **options)
        )

    def verify(
        self,
        store: Place,
        snapshots: Ids = None,
        *,
        fast: bool = False,
        max_bytes: int | None = None,
        max_seconds: int | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """
        Read the objects of *snapshots* again, by default of all, and compare them with their checksums.

        With *fast*, only their presence and length. *max_bytes* and *max_seconds* bound the job.
        """
        with one_line():
            bounds = VerifyOptions(fast=fast, max_bytes=max_bytes, max_seconds=max_seconds)
        return self._queued(self._requests.verify(store, snapshots, bounds, **options))

    def heal(
        self,
        store: Place,
        sources: Places,
        snapshots: Ids = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Replace wrong and missing objects of *store* by those of the first of the *sources* that has them."""
        return self._queued(self._requests.heal(store, sources, snapshots, **options))

    def submit(self, spec: JobSpec) -> Job:
        """Queue a request that the caller has built."""
        return self._queued(spec)

    def job(self, text: str) -> Job:
        """
        Return the job whose id begins with *text*.

        Raises `UnknownJob`, and `JobRefused` if *text* is empty or several ids begin with it.
        """
        return Job(self._jobs, self._jobs.find(text))

    def jobs(self, *, limit: int = 100, state: str | None = None) -> list[Job]:
        """
        Return the newest jobs, at most *limit*, in one *state* or in any.

        A state is one of `State`, "superseded" or "dismissed". Raises ValueError for another one.
        """
        states = [*map(str, State), SUPERSEDED, DISMISSED]
        if state is not None and state not in states:
            raise ValueError(f"state must be one of {', '.join(states)}, and not {state!r}")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, and not {limit}")
        return [Job(self._jobs, status.job_id) for status in self._jobs.list(limit=limit, state=state)]

    def take_up(self, job_id: str) -> Job | None:
        """
        Return the job that does the work of the job *job_id* now, None if there is no such job.

        That is the job itself, or the newest job that continues it. If that one failed or was cancelled, this resumes
        it, and returns the new job. So a task that runs again calls this with the id that it gave to its job, and
        submits that job only if it is told None. May be called again. A dry run is never resumed.
        """
        try:
            job = self.job(job_id).latest()
        except UnknownJob:
            return None
        status = job.status()
        if status.cancelling:
            status = job.wait(timeout_s=_CANCEL_S)
        ended_badly = status.state.final and status.state is not State.DONE
        return (job.resume() or job) if ended_badly and not status.dry_run else job

    def _queued(self, spec: JobSpec) -> Job:
        return Job(self._jobs, self._jobs.submit(spec))
