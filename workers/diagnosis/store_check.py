"""
Check the stores of a copy, in a separate process: ``python -m snapferry.workers.diagnosis.store_check``.

*does not block*: neither a worker's pool nor its consumer waits for a store, and a mount that hangs blocks only this
process. *as the worker*: it has the environment, the user and the mounts of the process that starts it. *leaves
nothing*: on SIGTERM it removes its probes before it exits. If its parent dies, it continues to the end.

The request is a JSON document on standard input. The findings are JSON lines on standard output.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any, Final, NamedTuple, NoReturn

from snapferry.stores.access import AccessPolicy, Right
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.diagnosis.probe import probe_destination, probe_pair, probe_source
from snapferry.stores.errors import NotAllowed, StoreError
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.settings.environment import child_environment

# Seconds for both stores together before SIGTERM.
TIMEOUT_S: Final = 60.0

# Seconds after SIGTERM that the starter waits, and after which the process ends even if it still removes its probes.
ENDING_S: Final = 10.0
REMOVING_S: Final = 120


class Side(NamedTuple):
    """A store to check."""

    url: str
    objects_url: str | None = None


class Check(NamedTuple):
    """A request. *snapshots* are ids that the source should have."""

    source: Side | None
    destination: Side | None
    snapshots: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> Check:
        """Return the request in *text*, as `json.dumps` wrote it. Raises ValueError, TypeError."""
        return cls.of(json.loads(text))

    @classmethod
    def of(cls, document: Any) -> Check:
        """Return the request in *document*. Raises ValueError, TypeError."""
        source, destination, snapshots = document
        return cls(
            Side(*source) if source else None, Side(*destination) if destination else None, tuple(snapshots)
        )


class SideFinding(NamedTuple):
    """A finding, and the side of the copy that it is about: "source", "destination", or "stores" for both."""

    where: str
    finding: Finding


def check_stores(check: Check, access: AccessPolicy) -> Iterator[SideFinding]:
    """Yield findings about stores that *access* allows. Raises `InvalidStoreURL`."""
    opened: dict[str, SnapshotStore | None] = {}
    for where, side, right in (
        ("source", check.source, Right.READ),
        ("destination", check.destination, Right.WRITE),
    ):
        try:
            opened[where] = _open(side, right, access)
        except NotAllowed as error:
            opened[where] = None
            said = f"{error.store}: {error.detail}"
            yield SideFinding(
                where,
                Finding(Level.ERROR, "store.allowed", said, "add it to [access] there, or use another store"),
            )
    source, destination = opened["source"], opened["destination"]
    fine = {"source": source is not None, "destination": destination is not None}
    for where, found in (
        ("source", probe_source(source, check.snapshots) if source else iter(())),
        ("destination", probe_destination(destination) if destination else iter(())),
    ):
        for finding in found:
            fine[where] &= finding.check != "store.answers" or finding.level is Level.OK
            yield SideFinding(where, finding)
    if source and destination and all(fine.values()):
        for finding in probe_pair(source, destination, check.snapshots):
            yield SideFinding("stores", finding)


def _open(side: Side | None, right: Right, access: AccessPolicy) -> SnapshotStore | None:
    # A destination that does not exist yet is checked by its parent folder. Nothing here creates it.
    return open_store(side.url, side.objects_url, right, access=access) if side else None


class CheckProcess:
    """A running process that checks stores. Wait for it with `end`."""

    def __init__(self, check: Check, access: AccessPolicy) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "snapferry.workers.diagnosis.store_check"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(),
            # Ctrl-C interrupts the command. The command stops this process with `stop`.
            start_new_session=True,
        )
        # Sent now, so the process starts to work before `end` is called.
        assert self._process.stdin is not None
        with self._process.stdin as request:
            request.write(json.dumps([check, access.to_document()]))
        self._process.stdin = None

    def end(self, timeout_s: float = TIMEOUT_S) -> list[SideFinding]:
        """
        Return all findings within *timeout_s* seconds, with an error among them if they are incomplete.

        If an exception interrupts the wait, the process is stopped first.
        """
        try:
            out, err = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            out, err = self.stop()
            said = f"the stores did not answer all questions within {timeout_s:.0f} s"
            late = Finding(Level.ERROR, "store.time", said, "check for a mount or a network that hangs")
            return [*_read(out), SideFinding("stores", late)]
        except BaseException:
            self.stop()
            raise
        found = _read(out)
        if self._process.returncode:
            last = (err.strip().splitlines() or ["no error message"])[-1]
            said = f"the check of the stores failed: {last[:300]}"
            found.append(SideFinding("stores", Finding(Level.ERROR, "store.probe", said)))
        return found

    def stop(self) -> tuple[str, str]:
        """
        Let the process remove its probes and end. Return its output, cut off after `ENDING_S` seconds.

        A process that takes longer ends by itself: a slow store must not keep its probe.
        """
        self._process.terminate()
        try:
            return self._process.communicate(timeout=ENDING_S)
        except subprocess.TimeoutExpired as late:
            # These are bytes, even where the output is text.
            return (late.stdout or b"").decode(errors="replace"), ""


def to_document(found: SideFinding) -> dict[str, Any]:
    """Return *found* as a JSON document."""
    return {"where": found.where, **asdict(found.finding)}


def from_document(document: dict[str, Any]) -> SideFinding:
    """Return the finding of a document by `to_document`. Raises KeyError, TypeError or ValueError."""
    fields = dict(document)
    where = str(fields.pop("where"))
    return SideFinding(where, Finding(**{**fields, "level": Level(fields["level"])}))


def _read(lines: str) -> list[SideFinding]:
    # The last line of a killed process may be incomplete.
    return [
        from_document(json.loads(line)) for line in lines.splitlines(keepends=True) if line.endswith("\n")
    ]


def _main() -> None:
    def interrupt(number: int, frame: object) -> NoReturn:
        signal.alarm(REMOVING_S)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    out = sys.stdout
    try:
        check, access = json.loads(sys.stdin.read())
        with closing(check_stores(Check.of(check), AccessPolicy.from_document(access))) as found:  # type: ignore[type-var]
            for finding in found:
                out.write(json.dumps(to_document(finding)) + "\n")
                out.flush()
    except StoreError as error:
        raise SystemExit(str(error)) from None
    except (BrokenPipeError, KeyboardInterrupt):
        # The reader of the findings is gone, or the process was told to end.
        raise SystemExit(1) from None


if __name__ == "__main__":
    _main()
