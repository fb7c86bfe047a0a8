"""The options of a job as they would be given on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from snapferry.stores.text.format import counted, size
from snapferry.workers.messages import JobSpec, Order
from snapferry.workers.settings.environment import PATIENCE_S

from .format import span, without_options

# Further sources, and patterns, that are listed.
_LISTED: Final = 5


def option_texts(spec: JobSpec) -> list[str]:
    """Return the options of a job that are not the default, without its stores, limits, priority and queue."""
    return list(_options(spec))


def _options(spec: JobSpec) -> Iterator[str]:
    if spec.everything and not spec.action.makes_snapshot:
        yield "--all"
    for name in ("trust_manifest", "allow_empty_source", "checksum", "server_side", "names"):
        if getattr(spec, name):
            yield f"--{name.replace('_', '-')}"
    if spec.order is not Order.GIVEN:
        yield f"--order {spec.order}"
    if spec.prune is not None:
        yield "--delete"
        if spec.prune.max_delete is not None:
            yield f"--max-delete {spec.prune.max_delete:,}"
        if spec.prune.force:
            yield "--force-delete"
    yield from _bounds(spec)
    yield from _of_action(spec)
    if spec.concurrency is not None:
        yield f"--jobs {spec.concurrency}"
    if spec.patience != PATIENCE_S:
        yield f"--patience {span(spec.patience)}"
    if spec.dry_run:
        yield "--dry-run"


def _bounds(spec: JobSpec) -> Iterator[str]:
    budget, verify = spec.budget, spec.verify
    if budget.max_objects is not None:
        yield f"--max-objects {budget.max_objects:,}"
    for most in (budget.max_bytes, verify.max_bytes):
        if most is not None:
            yield f"--max-bytes {size(most)}"
    if budget.max_cost is not None:
        yield f"--max-cost {budget.max_cost:g} {budget.currency}".rstrip()
    if verify.max_seconds is not None:
        yield f"--max-time {span(verify.max_seconds)}"


def _of_action(spec: JobSpec) -> Iterator[str]:
    if spec.verify.fast:
        yield "--fast"
    if spec.scope.samples > 1:
        yield f"--sample 1/{spec.scope.samples}"
    if spec.scrub is not None:
        yield f"share {spec.scrub.share + 1:,} of {spec.scrub.shares:,} of scrub {spec.scrub.name}"
    for url in (store.url for store in spec.more_sources[:_LISTED]):
        yield f"--from {without_options(url)}"
    tree = spec.tree
    for pattern in tree.exclude[:_LISTED]:
        yield f"--exclude {pattern}"
    if len(tree.exclude) > _LISTED:
        yield f"and {counted(len(tree.exclude) - _LISTED, 'more pattern', 'more patterns')}"
    if not tree.follow:
        yield "--no-follow"
    if tree.delete:
        yield "--delete"
    if tree.linked:
        yield "--linked"
