"""Open and check the stores of a job, and classify what a check finds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from snapferry.stores.access import AccessPolicy, Right
from snapferry.stores.address import Address
from snapferry.stores.errors import AccessDenied, NotAllowed, StoreError, StoreNotFound, StoreUnavailable
from snapferry.stores.opening import open_store
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.urls import is_local

from .parked_jobs import ParkedJobs
from .sides import StoreSide
from .store_problems import Kind, StoreProblems

# A check that takes longer counts as unanswered. Checks of S3 stores end by themselves after 8 s.
CHECK_S: Final = 10.0


def open_side(side: StoreSide, access: AccessPolicy) -> StreamStore:
    """
    Open a store of a job, if *access* allows it. Raises `InvalidStoreURL` and `NotAllowed`.

    A missing directory is not created: it may be the mount point of a file system that is not mounted.
    """
    right = Right.WRITE if side.writing else Right.READ
    return open_store(side.ref.parsed, side.ref.parsed_objects, right, access=access, create=False)


def check(side: StoreSide, access: AccessPolicy, known: Sequence[Address] = ()) -> StoreError | None:
    """
    Return the error that keeps this process from a store, None if there is none. Takes at most `CHECK_S` seconds.

    *known* are objects that the store has held a moment ago. One of them must still be there. They also tell a store
    that refuses this process from one whose permissions do not include what a check asks for.
    """
    answers: list[StoreError | None] = []

    def ask() -> None:
        try:
            _ask(open_side(side, access), side, known)
        except StoreError as error:
            answers.append(error)
        else:
            answers.append(None)

    # A directory on a dead network mount gives no answer at all, not even an error. The owner of the work may stop
    # the work, but not the check, so the check runs in its own context.
    thread = threading.Thread(target=ask, name="check-store", daemon=True)
    thread.start()
    thread.join(CHECK_S)
    if not answers:
        shown = side.ref.url.partition("?")[0]
        return StoreUnavailable(shown, "", f"did not answer within {CHECK_S:.0f} s")
    return answers[0]


def _ask(store: StreamStore, side: StoreSide, known: Sequence[Address]) -> None:
    """Check *store*, and look for objects that it is known to hold. Raises `StoreError`."""
    refusal: AccessDenied | None = None
    try:
        store.check(for_writing=side.writing)
        if not side.writing:
            _check_mounted(store)
    except AccessDenied as error:
        # The check of a bucket asks for a listing, which a copy may do without.
        if not known or isinstance(error, NotAllowed) or is_local(side.ref.url):
            raise
        refusal = error
    try:
        held = not known or any(map(store.has_object, known))
    except StoreError as error:
        if refusal is not None and not error.transient:
            raise refusal from None
        # Reading may not be permitted where objects are only written.
        if isinstance(error, AccessDenied) and side.writing:
            return
        raise
    if not held:
        raise refusal or StoreNotFound(
            store.label, "", "objects that were here a moment ago are gone; is the store mounted here?"
        )


def missing_store(
    jobs: ParkedJobs, job_id: str, side: StoreSide, access: AccessPolicy, opened: StreamStore | None = None
) -> StoreError | None:
    """
    Return the error of a destination that no longer holds a store though the job has copied objects to it, else None.

    A mount point on which nothing is mounted often exists and is empty; nothing must be written there. *opened* is the
    store of *side* to which something will be written. Raises `InvalidStoreURL`, `NotAllowed` and
    `redis.exceptions.RedisError`.
    """
    if not side.writing or not is_local(side.ref.url):
        return None
    label = (opened or open_side(side, access)).unmounted(objects_only=True)
    if label and jobs.has_settled_objects(job_id):
        return StoreNotFound(label, "", "the store in this directory is gone; is it mounted here?")
    return None


def kind_of(
    problems: StoreProblems, side: StoreSide, worker: str, error: StoreError, *, reached: bool = False
) -> Kind:
    """
    Return whether *error*, the result of a check, means that the store is away or that it refused the worker.

    *reached*: the worker has just used objects of the store.
    """
    if error.transient:
        return Kind.AWAY
    is_gone = isinstance(error, StoreNotFound) and is_local(side.ref.url)
    if is_gone and (reached or problems.reached_before(side, worker)):
        # The file system is not mounted. A missing bucket is an answer of the store, a missing directory is not.
        return Kind.AWAY
    return Kind.REFUSED


def _check_mounted(store: StreamStore) -> None:
    """
    Make sure that a source in a directory holds a store: a directory on which nothing is mounted is empty.

    Raises `StoreNotFound`.
    """
    if label := store.unmounted():
        raise StoreNotFound(label, "", "there is no store in this directory; is it mounted here?")
