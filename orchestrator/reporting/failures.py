"""The dead letters of a job: its failed objects, with the reasons and with the snapshots and paths that need them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from snapferry.orchestrator.driving.actions import STEPS
from snapferry.orchestrator.driving.context import open_catalogue
from snapferry.orchestrator.planning.plan import Lines, Plan, SourceChanged
from snapferry.orchestrator.planning.snapshots import PLANNED, Snapshots
from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.stores.address import Address
from snapferry.stores.errors import StoreError
from snapferry.stores.hashing import digest
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.ledger import FailedObject, Ledger, set_bits
from snapferry.workers.messages.files import path_of
from snapferry.workers.outcome import Failure

# Failed objects that are looked up at once; each such page reads the manifests once.
PAGE: Final = 10_000

# Places of an object that are listed.
PLACES_SHOWN: Final = 100


@dataclass
class DeadLetter:
    """
    An object that failed, of *size_bytes* bytes by the manifest.

    *known* has the error; it is None beyond the first `FAILURES_KEPT` failures of a job. *places* are pairs of
    snapshot id and path, in the order of the job's snapshots: the first `PLACES_SHOWN` of *places_total*. *path* is
    that of a file of a push or a pull, whose *address* is the digest of its path; "" for an object.
    """

    address: str
    size_bytes: int
    known: FailedObject | None = None
    places: list[tuple[str, str]] = field(default_factory=list)
    places_total: int = 0
    path: str = ""

    @property
    def reason(self) -> str:
        """What the error says, without the path of a file before it; "" if the error was not kept."""
        detail = self.known.failure.detail if self.known else ""
        return detail.removeprefix(f"{self.path}: ") if self.path else detail

    @property
    def error(self) -> str:
        """The class of the error and what it says, "" if the error was not kept."""
        return f"{self.known.failure.error}: {self.known.failure.detail}" if self.known else ""


def dead_letters(ledger: Ledger, job_id: str, access: AccessPolicy = STRICT) -> Iterator[DeadLetter]:
    """
    Yield every failed object of a job, in the order of its plan. Memory is bounded by `PAGE`.

    Reads the manifests of the job's snapshots, if *access* allows it. Raises `StoreError` or `SourceChanged` if they
    cannot be read any more (`without_places` needs no store), and `UnknownJob`. May be repeated.
    """
    positions = set_bits(ledger.bitmap(job_id, "failed"))
    first = next(positions, None)
    if first is None:
        return
    request = ledger.spec(job_id)
    catalogue = open_catalogue(request, access)
    snapshots, plan = STEPS[request.action].recall(ledger, request, catalogue)
    known = {failed.failure.address: failed for failed in ledger.failures(job_id)}
    chosen = [first, *islice(positions, PAGE - 1)]
    while chosen:
        page = {
            (address := plan.address(position)): DeadLetter(address, plan.size(position), known.get(address))
            for position in chosen
        }
        if plan.lines is not None:
            _note_paths(page, snapshots, plan, plan.lines, chosen)
        else:
            _find_places(page, snapshots, catalogue)
        yield from page.values()
        chosen = list(islice(positions, PAGE))


def without_places(ledger: Ledger, job_id: str) -> list[DeadLetter]:
    """Return what the ledger knows: the first failed objects, without their places. Raises `UnknownJob`."""
    ledger.field(job_id, "state")
    return [
        DeadLetter(failed.failure.address, 0, failed, path=_path_told(failed.failure))
        for failed in ledger.failures(job_id)
    ]


def _path_told(failure: Failure) -> str:
    """Return the path of a file, which its failure tells before the reason; "" for an object."""
    detail, end = failure.detail, -1
    while (end := detail.find(": ", end + 1)) >= 0:
        # A path may have a colon itself.
        if digest(detail[:end].encode(errors="surrogateescape")) == failure.address:
            return detail[:end]
    return ""


def _note_paths(
    page: dict[Address, DeadLetter], snapshots: Snapshots, plan: Plan, lines: Lines, positions: list[int]
) -> None:
    """Note the paths of files: each is an object of its own in the plan, and its path is beside it."""
    for position in positions:
        letter = page[plan.address(position)]
        (line,) = lines.of(position, position + 1)
        letter.path = path_of(line)
        letter.places, letter.places_total = [(snapshots.ids[0], letter.path)], 1


def _find_places(page: dict[Address, DeadLetter], snapshots: Snapshots, catalogue: StreamStore) -> None:
    for index in snapshots.of(PLANNED):
        snapshot_id = snapshots.ids[index]
        try:
            with catalogue.read_manifest(snapshot_id) as manifest:
                for address, path in manifest.paths_of(page):
                    letter = page[address]
                    letter.places_total += 1
                    if len(letter.places) < PLACES_SHOWN:
                        letter.places.append((snapshot_id, path))
        except StoreError as error:
            raise SourceChanged(f"the source changed since the job ran: {error}") from error
