"""The dead letters of a job: every object that failed, why, and which snapshots and paths it holds up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from snapferry.orchestrator.planning.prepare import PLANNED, Snapshots, SourceChanged, recall
from snapferry.stores.access import STRICT, AccessPolicy, Right
from snapferry.stores.address import Address
from snapferry.stores.errors import StoreError
from snapferry.stores.opening import open_store
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.ledger import FailedObject, Ledger, set_bits

# So many failed objects are looked up at once; each such page reads the manifests once.
PAGE: Final = 10_000

# Of an object that is in more places, no more are listed.
PLACES_SHOWN: Final = 100


@dataclass
class DeadLetter:
    """
    An object that failed.

    *known* has the error; None for those beyond the first `snapferry.workers.ledger.FAILURES_KEPT`.
    *places* are (snapshot id, path), in the order of the job's snapshots, at most `PLACES_SHOWN`
    of *places_total*.
    """

    address: str
    size_bytes: int
    known: FailedObject | None = None
    places: list[tuple[str, str]] = field(default_factory=list)
    places_total: int = 0


def dead_letters(ledger: Ledger, job_id: str, access: AccessPolicy = STRICT) -> Iterator[DeadLetter]:
    """
    Yield every object that failed in a job, in the order of its plan. Memory is bounded by `PAGE`.

    Reads the manifests at the source, if *access* allows it. Raises `StoreError` or
    `prepare.SourceChanged` where they cannot be read any more (`without_places`
    needs no store), `snapferry.workers.ledger.UnknownJob`.
    """
    positions = set_bits(ledger.bitmap(job_id, "failed"))
    first = next(positions, None)
    if first is None:
        return
    request = ledger.spec(job_id)
    source = open_store(request.source.parsed, request.source.parsed_objects, Right.READ, access=access)
    snapshots, plan = recall(ledger, request, source)
    known = {failed.failure.address: failed for failed in ledger.failures(job_id)}
    chosen = [first, *islice(positions, PAGE - 1)]
    while chosen:
        page = {
            (address := plan.address(position)): DeadLetter(address, plan.size(position), known.get(address))
            for position in chosen
        }
        _find_places(page, snapshots, source)
        yield from page.values()
        chosen = list(islice(positions, PAGE))


def without_places(ledger: Ledger, job_id: str) -> list[DeadLetter]:
    """Return what the ledger alone knows: the first failed objects, without their places. Raises `UnknownJob`."""
    ledger.field(job_id, "state")
    return [DeadLetter(failed.failure.address, 0, failed) for failed in ledger.failures(job_id)]


def _find_places(page: dict[Address, DeadLetter], snapshots: Snapshots, source: StreamStore) -> None:
    for index in snapshots.of(PLANNED):
        snapshot_id = snapshots.ids[index]
        try:
            with source.read_manifest(snapshot_id) as manifest:
                for address, path in manifest.paths_of(page):
                    letter = page[address]
                    letter.places_total += 1
                    if len(letter.places) < PLACES_SHOWN:
                        letter.places.append((snapshot_id, path))
        except StoreError as error:
            raise SourceChanged(f"the source changed since the job ran: {error}") from error
