"""Make a snapshot of a directory: the body of push."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from snapferry.orchestrator.cli.exit_codes import note, usage
from snapferry.orchestrator.cli.inputs.show import Show, with_show
from snapferry.orchestrator.cli.inputs.store_names import objects_url, store_url
from snapferry.orchestrator.cli.launch import run_job
from snapferry.orchestrator.cli.receipt_file import check_receipt_path
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.jobs import check_is_store, store_pair, tree_path, tree_url
from snapferry.orchestrator.planning.trees.apart import check_pushable
from snapferry.stores.address import MANIFESTS, OBJECTS
from snapferry.stores.backends.tree.exclude import excluder
from snapferry.stores.errors import InvalidName, InvalidPattern, InvalidStoreURL
from snapferry.stores.names.name import parse_name
from snapferry.stores.text.printable import subject
from snapferry.workers.faults import first_fault_text
from snapferry.workers.messages import Action, JobSpec, Limits, TreeOptions


@with_show
def push(
    path: str,
    destination: str,
    to_objects: str | None,
    tag: str | None,
    exclude: tuple[str, ...],
    no_follow: bool,
    walk_jobs: int,
    broker: str | None,
    detach: bool,
    receipt_path: str | None,
    verbose: bool,
    show: Show,
    **given: Any,
) -> int:
    settings = read_settings(broker)
    check_receipt_path(receipt_path, dry_run=given["dry_run"], detach=detach)
    try:
        path = tree_path(path)
        tree_at = tree_url(path)
        if settings.broker_url is None and not Path(path).is_dir():
            usage(
                f"{subject(path)}: {'is not a directory' if os.path.lexists(path) else 'no such directory'}"
            )
        name = "" if tag is None else parse_name(tag)
        excluder(exclude)
        source, target = store_pair(
            tree_at, store_url(settings, destination), None, objects_url(settings, to_objects)
        )
        check_is_store(target, f"--to {destination}")
        check_pushable(source, target)
        tree = TreeOptions(exclude=exclude, follow=not no_follow, walk_jobs=walk_jobs)
    except InvalidName as error:
        usage(f"--tag {error}")
    except InvalidPattern as error:
        usage(f"--exclude {error}")
    except InvalidStoreURL as error:
        usage(str(error))
    except ValidationError as error:
        usage(f"--exclude {first_fault_text(error)}")
    if _is_store(path) and not show.quiet:
        note(
            f"{subject(path)} is a store, and is pushed as any directory is. To copy its snapshots, use:"
            f" snapferry sync {shlex.join([path, destination])} --all"
        )
    limits = Limits(**{name: given.pop(name) for name in Limits.model_fields})
    fields = {name: value for name, value in given.items() if value is not None}
    spec = JobSpec(
        source=source,
        destination=target,
        everything=True,
        action=Action.PUSH,
        tree=tree,
        tag=name,
        limits=limits,
        **fields,
    )
    return run_job(spec, settings, show, receipt_path=receipt_path, verbose=verbose, detach=detach)


def _is_store(path: str) -> bool:
    """Return whether a directory of this machine is a store: maybe PATH and TO were given in the wrong order."""
    return all(os.path.isdir(os.path.join(path, part)) for part in (OBJECTS, MANIFESTS))
