"""The commands that look at stores: ls, size, diff, show, cat and orphans."""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.cli.options import places
from snapferry.orchestrator.cli.options.common import OUTPUT, json_option, store_argument
from snapferry.orchestrator.cli.options.declare import argument, command, option
from snapferry.orchestrator.cli.options.values import Duration, WholeNumber

STORES: Final = "Stores"
COMPARISON: Final = "Comparison"

_id_argument = argument(
    "snapshot", metavar="ID", text="Snapshot: its id, the first digits of its id, NAME@ or latest."
)
_objects_option = option(
    "--objects",
    metavar="STORE",
    section=STORES,
    help="Store that holds the objects, if it is not STORE itself.",
)
_bytes_option = option(
    "-b", "--bytes", "exact", is_flag=True, section=OUTPUT, help="Print sizes in bytes, without units."
)
_progress_option = option(
    "--no-progress",
    is_flag=True,
    envvar="SNAPDIR_NO_PROGRESS",
    section=OUTPUT,
    help="Do not show progress.",
)

_EXIT_CODES: Final = """
\b
Exit codes:
  0    done
  1    the store cannot be reached or read, or a manifest or object is corrupt
  2    bad usage or configuration, or there is no such snapshot or path
  130  interrupted
"""

LS_EXAMPLES: Final = (
    """
Examples:

\b
  List the ids of all snapshots, for example to copy those that match:
    snapferry ls /srv/store

\b
  List them by date, with their files and bytes:
    snapferry ls -l s3://backup/store
"""
    + _EXIT_CODES
)


@command(run="look.ls:list_snapshots", name="ls", interruptible=True, epilog=LS_EXAMPLES)
@store_argument
@option(
    "-l",
    "--long",
    "long_rows",
    is_flag=True,
    section=OUTPUT,
    help="Read each manifest; list date, files, bytes and short id, the newest snapshot last.",
)
@_bytes_option
@json_option
@_progress_option
def list_snapshots() -> None:
    """List the snapshot ids in a store, sorted, one per line."""


SIZE_EXAMPLES: Final = (
    """
Examples:

\b
  Show what a store holds, and what its snapshots share:
    snapferry size /srv/store

\b
  Show the size of one snapshot, and how much of it other snapshots name too:
    snapferry size /srv/store --id 8b1f92 --shared
"""
    + _EXIT_CODES
)


@command(run="look.size:size", interruptible=True, epilog=SIZE_EXAMPLES)
@store_argument
@option(
    "--id",
    "snapshot",
    metavar="ID",
    help="Show the size of this snapshot alone: its id, its first digits, NAME@ or latest.",
)
@option(
    "--shared",
    is_flag=True,
    help="With --id, also read all other manifests, and show which objects they name too.",
)
@_bytes_option
@json_option
@_progress_option
def size() -> None:
    """
    Show the size of a store or of a snapshot.

    Logical bytes are those of all files of all snapshots. Physical bytes are those
    of the distinct objects: what is stored. Shared objects are those that several
    snapshots name. Sizes are those in the manifests; no object is read.
    """


DIFF_EXAMPLES: Final = """
Examples:

\b
  Show what changed between two snapshots of a store:
    snapferry diff /srv/store@8b1f92 @latest

\b
  Show which snapshots only one of two stores has:
    snapferry diff /srv/store s3://backup/store

\b
  Check in a script that a backup has the objects of a store:
    snapferry diff --objects --exit-code /srv/store s3://backup/store

\b
Exit codes:
  0    compared
  1    with --exit-code: they differ
  2    not compared: bad usage, no such snapshot, or a store that cannot be read
  130  interrupted
"""


@command(
    run="look.diff:diff",
    places=places.of_diff,
    interruptible=True,
    epilog=DIFF_EXAMPLES,
    surplus="For two snapshots of a store, write STORE@ID @ID.",
)
@argument("first", metavar="A", required=False, text="A snapshot as STORE@ID, or a store.")
@argument(
    "second",
    metavar="B",
    required=False,
    text="What to compare with: a snapshot as STORE@ID, or @ID in the same store; or a store.",
)
@option("--from", "source", metavar="A", section=COMPARISON, help="The same as the argument A.")
@option("--to", "destination", metavar="B", section=COMPARISON, help="The same as the argument B.")
@option("--exit-code", is_flag=True, section=COMPARISON, help="Exit with code 1 if A and B differ.")
@option(
    "--directories",
    is_flag=True,
    section=COMPARISON,
    help="Of snapshots, also list directories that were added, deleted, or have other permissions.",
)
@option(
    "--objects",
    is_flag=True,
    section=COMPARISON,
    help="Of stores, compare the objects instead of the snapshots.",
)
@json_option
@_progress_option
def diff() -> None:
    """
    Show what differs between two snapshots or two stores.

    Each line is A (added: only B has it), D (deleted: only A has it) or M
    (modified), and a path. Of two stores, it is the id of a snapshot, or with
    --objects the address of an object.

    Snapshots are compared by their manifests: type, permissions, checksum and size
    of each file. No object is read.
    """


SHOW_EXAMPLES: Final = (
    """
Examples:

\b
  Show the files of a snapshot as a tree, two levels deep:
    snapferry show --depth 2 /srv/store 8b1f92

\b
  List everything below a directory, with full paths:
    snapferry show --flat /srv/store 8b1f92 src/main
"""
    + _EXIT_CODES
)


@command(run="look.show:show", interruptible=True, epilog=SHOW_EXAMPLES)
@store_argument
@_id_argument
@argument(
    "path",
    required=False,
    default=".",
    metavar="[PATH]",
    completes="path",
    text="File or directory in the snapshot.",
)
@option("--flat", is_flag=True, section=OUTPUT, help="Print full paths instead of a tree.")
@option("--depth", type=WholeNumber(0), metavar="N", section=OUTPUT, help="Show only N levels below PATH.")
@_bytes_option
@json_option
def show() -> None:
    """
    Show the files and directories of a snapshot.

    Each line has permissions, size and name. Characters that could control a
    terminal are escaped.
    """


CAT_EXAMPLES: Final = (
    """
Examples:

\b
  Print a file of a snapshot:
    snapferry cat /srv/store 8b1f92 etc/fstab

\b
  Restore one large file, printed while it is read:
    snapferry cat --stream s3://backup/store 8b1f92 disk.img > disk.img
"""
    + _EXIT_CODES
)


@command(run="look.cat:cat", interruptible=True, epilog=CAT_EXAMPLES)
@store_argument
@_id_argument
@argument("path", metavar="PATH", completes="path", text="File in the snapshot.")
@_objects_option
@option(
    "--stream",
    is_flag=True,
    help="Print the file while it is read and verify it at the end, instead of before.",
)
def cat() -> None:
    """
    Print a file of a snapshot.

    The file is verified before its first byte is printed: up to 32 MiB in memory,
    more in a temporary file in TMPDIR. With --stream, a corrupt file ends the
    command with exit code 1 after its bytes were printed.
    """


ORPHANS_EXAMPLES: Final = (
    """
Examples:

\b
  List the objects that no snapshot needs, if they are older than a week:
    snapferry orphans --older-than 7d /srv/store

\b
  Count the orphans of a pool that two stores share:
    snapferry orphans --count --objects s3://pool s3://one s3://two
"""
    + _EXIT_CODES
)


@command(run="look.orphans:orphans", interruptible=True, epilog=ORPHANS_EXAMPLES)
@argument(
    "stores",
    nargs=-1,
    required=True,
    metavar="STORE...",
    text="Store: a URL, a path, or a name from snapferry.toml. With --objects: all stores whose manifests name its"
    " objects.",
)
@_objects_option
@option(
    "--older-than",
    type=Duration(),
    metavar="DURATION",
    section=STORES,
    help="Leave out objects that were written later, such as 12h or 7d ago.",
)
@option("--count", is_flag=True, section=OUTPUT, help="Print the counts only.")
@_bytes_option
@json_option
@_progress_option
def orphans() -> None:
    """
    List objects that no manifest names.

    Each line has the address, the size and the date of an object. Nothing is
    deleted. A push or sync in progress writes objects before the manifest that
    names them, so young orphans may belong to it. Temporary files and quarantined
    objects are not listed.
    """
