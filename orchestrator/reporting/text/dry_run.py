"""What a job would do, in the words of its action, with what that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from snapferry.stores.text.format import counted, size
from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import JobStatus
from snapferry.workers.messages import Action

from .format import without_options

# Manifests and paths to be removed that are listed.
SHOWN: Final = 20


def dry_run_lines(status: JobStatus, estimate: Mapping[str, Any]) -> list[str]:
    """Return the estimate of a dry run, as lines."""
    return [
        _FIRST_LINES[status.action](estimate),
        *_plan_lines(status, estimate),
        *_request_lines(status, estimate),
        *(_delete_lines(estimate) if "delete" in estimate else ()),
        *(_remove_lines(estimate["remove"]) if "remove" in estimate else ()),
        *([printable(f"  refused    {estimate['refused']}")] if estimate.get("refused") else ()),
    ]


def _copy(estimate: Mapping[str, Any]) -> str:
    copied = _part(estimate, "object", "to_copy")
    return f"would copy {copied}; {_present(estimate)} already present. Nothing was written."


def _verify(estimate: Mapping[str, Any]) -> str:
    if asked := estimate["objects"].get("to_ask"):
        objects = counted(asked, "object", of=estimate["objects"]["total"])
        return f"would look whether {objects} {'is' if asked == 1 else 'are'} there, and how long. None was looked at."
    stops = ", then stop at --max-bytes" if estimate.get("bounded") else ""
    return f"would read {_part(estimate, 'object', 'to_read')}{stops}. None was read."


def _heal(estimate: Mapping[str, Any]) -> str:
    missing = estimate["objects"]["to_copy"]
    which = f"{counted(missing, 'object')} that {'is' if missing == 1 else 'are'} missing"
    fetched = f"fetch {which} ({size(estimate['bytes']['to_copy'])}), and " if missing else "and "
    read = _part(estimate, "object", "to_read")
    return f"would read {read}, {fetched}replace wrong ones. No object was read, and nothing was written."


def _push(estimate: Mapping[str, Any]) -> str:
    files = f"{counted(estimate['objects']['total'], 'file')}, {size(estimate['bytes']['total'])}"
    return f"would read {files}, and push those that the store does not have. None was read, and nothing was written."


def _pull(estimate: Mapping[str, Any]) -> str:
    return f"would write {_part(estimate, 'file', 'to_copy')}; {_present(estimate)} already right. Nothing was written."


_FIRST_LINES: Final[dict[Action, Callable[[Mapping[str, Any]], str]]] = {
    Action.COPY: _copy,
    Action.VERIFY: _verify,
    Action.HEAL: _heal,
    Action.PUSH: _push,
    Action.PULL: _pull,
}


def _part(estimate: Mapping[str, Any], unit: str, what: str) -> str:
    """Return how many objects and bytes of all are *what*."""
    objects, bytes_ = estimate["objects"], estimate["bytes"]
    return f"{counted(objects[what], unit, of=objects['total'])}, {size(bytes_[what])} of {size(bytes_['total'])}"


def _present(estimate: Mapping[str, Any]) -> str:
    return f"{estimate['objects']['present']:,}"


def _plan_lines(status: JobStatus, estimate: Mapping[str, Any]) -> Iterator[str]:
    snapshots = estimate["snapshots"]
    if not status.action.tree_side:
        where = (
            "in the store" if status.action.at_destination or not status.action.writes else "at the source"
        )
        yield (
            f"  snapshots  {snapshots['total']:,}"
            + (f", {snapshots['trusted']:,} not checked (--trust-manifest)" if snapshots["trusted"] else "")
            + (f", {snapshots['unreadable']:,} unreadable {where}" if snapshots["unreadable"] else "")
        )
    yield f"  batches    {estimate['batches']:,}"


def _request_lines(status: JobStatus, estimate: Mapping[str, Any]) -> Iterator[str]:
    # A push does not know which of its files the store has.
    inexact = "at most " if status.action.makes_snapshot else "about "
    about = "" if estimate.get("exact", True) else inexact
    for side, store in (("source", status.source), ("destination", status.destination)):
        if sent := {name: count for name, count in sorted(estimate["requests"][side].items()) if count}:
            counts = ", ".join(f"{count:,} {name}" for name, count in sent.items())
            yield printable(f"  requests   {about}{counts} at {without_options(store)}")
    if estimate["cost"] is not None:
        yield printable(f"  cost       {about}{estimate['cost']:.4f} {estimate['currency']}")


def _delete_lines(estimate: Mapping[str, Any]) -> Iterator[str]:
    ids, refused = estimate["delete"], estimate["delete_refused"]
    verb = "would refuse to delete" if refused else "would delete"
    yield f"  deletions  {verb} {counted(len(ids), 'manifest')} at the destination"
    if refused:
        yield f"             {refused}"
    yield from (f"    {snapshot_id}" for snapshot_id in ids[:SHOWN])
    if len(ids) > SHOWN:
        yield f"    and {len(ids) - SHOWN:,} more"


def _remove_lines(removed: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a pull would remove."""
    files, directories = removed["files"], removed["directories"]
    content = ", with all that is in " + ("it" if directories == 1 else "them") if directories else ""
    names = f"{counted(files, 'file')} and {counted(directories, 'directory', 'directories')}{content}"
    yield f"  deletions  would remove {names if files + directories else 'nothing'}"
    if in_the_way := removed["in_the_way"]:
        yield f"             {in_the_way:,} of them in the place of a file or directory of the snapshot"
    if unlisted := removed["unlisted"]:
        unread = counted(unlisted, "directory", "directories", verb="has")
        yield f"             {unread} no permission to be listed; what is in there is not counted"
    yield from (printable(f"    {path}") for path in removed["paths"])
    if (more := files + directories - len(removed["paths"])) > 0:
        yield f"    and {more:,} more"
