"""The command that makes a directory tree of a snapshot: pull."""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.cli.options import places
from snapferry.orchestrator.cli.options.common import receipt_option, show_options, with_options
from snapferry.orchestrator.cli.options.declare import argument, command, option
from snapferry.orchestrator.cli.options.job import (
    FLEET_OPTIONS,
    LIMIT_OPTIONS,
    detach_option,
    dry_run_option,
    verbose_option,
)

STORE: Final = "Store"
FILES: Final = "Files"

EXAMPLES: Final = """
Examples:

\b
  Restore a snapshot into a directory:
    snapferry pull s3://backup/store --id 8b1f... ~/restored

\b
  Make a directory an exact mirror of the newest snapshot:
    snapferry pull --from /srv/store --id latest /srv/www --delete

\b
  Show how many files would be written, without writing any:
    snapferry pull --from /srv/store --id nightly@ /srv/www --dryrun

\b
  Restore to a shared file system by a fleet, whose workers mount it at the same path:
    snapferry pull --from s3://backup/store --id 8b1f... /mnt/data \\
      --broker redis://queue:6379/0

\b
  Let the fleet do the work, and print the id of the job:
    snapferry pull --from backup --id 8b1f... /mnt/data --detach \\
      --broker redis://queue:6379/0

\b
Exit codes:
  0    done: every file and directory is as in the snapshot
  1    the job failed, or its receipt could not be written
  2    bad usage or configuration
  130  interrupted
"""

_OPTIONS: Final = (
    option(
        "--from",
        "source",
        metavar="STORE",
        envvar="SNAPDIR_STORE",
        section=STORE,
        help="Store that has the snapshot: a URL, a path, or a name from snapferry.toml.",
    ),
    option(
        "--from-objects",
        metavar="STORE",
        section=STORE,
        help="Store that holds the objects, if it is not the store itself.",
    ),
    option(
        "--id",
        "snapshot_id",
        required=True,
        metavar="ID",
        section=STORE,
        help="Snapshot to restore: an id, its first digits, NAME@ or latest.",
    ),
    option(
        "--delete",
        is_flag=True,
        section=FILES,
        help="Remove what is in PATH and not in the snapshot, after everything else is there.",
    ),
    option(
        "--linked",
        is_flag=True,
        section=FILES,
        help="Let each file share its blocks with the store (a clone), or fail. The store must be a directory on the"
        " same file system, which must be able to clone, as Btrfs and XFS are.",
    ),
    *LIMIT_OPTIONS,
    *FLEET_OPTIONS,
    detach_option,
    dry_run_option(
        "Compare PATH with the snapshot, and count what would be written and, with --delete, removed, without changing"
        " anything."
    ),
    receipt_option,
    verbose_option,
)


@command(run="actions.pull:pull", places=places.of_pull, interruptible=True, epilog=EXAMPLES)
@argument("first", metavar="[FROM]", required=False, text="Store that has the snapshot, instead of --from.")
@argument(
    "second",
    metavar="PATH",
    required=False,
    completes="directory",
    text="Directory to restore to. It is made if it does not exist.",
)
@with_options(_OPTIONS)
@show_options
def pull() -> None:
    """
    Restore a snapshot into a directory.

    Files that are right already are read and left alone; others are replaced one
    by one, each in a single step. Permissions and empty directories are restored.
    Other files in PATH stay, unless --delete is given. Nothing outside PATH is
    written: links in PATH are replaced where the snapshot has a file or directory,
    and never followed. Running the same command again resumes an interrupted pull.

    Without a broker, worker processes on this machine do the work, and end with
    the command. With a broker, the fleet does the work, and writes to PATH on its
    own machines.
    """
