"""The command push."""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.cli.options import places
from snapferry.orchestrator.cli.options.common import receipt_option, show_options
from snapferry.orchestrator.cli.options.declare import argument, command
from snapferry.orchestrator.cli.options.job import verbose_option
from snapferry.orchestrator.cli.options.push import push_options

EXAMPLES: Final = """
Examples:

\b
  Make a snapshot of a directory in a store, and keep its id:
    id=$(snapferry push -q ~/photos file:///srv/store)

\b
  Give the snapshot a name, or move the name to it:
    snapferry push ~/photos --to s3://backup/store --tag photos

\b
  Leave out directories and files by their paths:
    snapferry push . --to s3://backup/store \\
      --exclude '/\\.git$' --exclude '/node_modules$' --exclude '\\.tmp$'

\b
  Push a shared file system by a fleet, whose workers mount it at the same path:
    snapferry push /mnt/data --walk-jobs 32 --to s3://backup/store \\
      --broker redis://queue:6379/0

\b
Exit codes:
  0    done
  1    the job failed, or its receipt could not be written
  2    bad usage or configuration
  130  interrupted
"""


@command(run="actions.push:push", places=places.of_push, interruptible=True, epilog=EXAMPLES)
@argument("path", metavar="PATH", completes="directory", text="Directory to make a snapshot of.")
@argument("place", metavar="[TO]", required=False, text="Store that receives the snapshot, instead of --to.")
@push_options
@receipt_option
@verbose_option
@show_options
def push() -> None:
    """
    Make a snapshot of a directory in a store, and print its id.

    The id is the last line of the output; with -q it is the only line.

    Each file is read, hashed, and sent if the store does not have it. The snapshot
    is published when all of its files are in the store. Running the same command
    again resumes an interrupted push.

    Symbolic links are followed. Links that lead nowhere, sockets, FIFOs and devices
    are left out. A file that changes while it is read is read again a few times;
    if it does not hold still, the push fails and lists it.

    Without a broker, worker processes on this machine do the work, and end with
    the command. With a broker, the fleet does the work, and reads PATH on its own
    machines.
    """
