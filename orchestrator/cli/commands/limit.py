"""The command that sets limits: limit."""

from __future__ import annotations

from snapferry.orchestrator.cli.options.common import LIMITS, broker_option, json_option
from snapferry.orchestrator.cli.options.declare import argument, command, option
from snapferry.orchestrator.cli.options.values import OrWord, Rate, WholeNumber
from snapferry.workers.settings.quantities import MOST_IN_FLIGHT, MOST_REQUESTS

EXAMPLES = """
Examples:

\b
  Limit a job to 20 MB per second:
    snapferry limit 8b1f --limit-rate 20M

\b
  Limit all jobs together to 500 requests per second at a store:
    snapferry limit --store s3://backup/store --max-requests 500

\b
  Show the limits of all stores:
    snapferry limit
"""


@command(run="limit:limit", epilog=EXAMPLES)
@argument(
    "job",
    metavar="[JOB]",
    required=False,
    text="Id of the job, or its first digits if no other job has them.",
)
@option(
    "--store",
    metavar="STORE",
    section=LIMITS,
    help="Limit this store, for all jobs together: a URL, a path, or a name from snapferry.toml.",
)
@option(
    "--limit-rate",
    type=OrWord(Rate(), "none"),
    metavar="RATE",
    section=LIMITS,
    help="Bytes per second, such as 500k, 100M or 1.5Gi, or none. For JOB, counts what this job reads from its source;"
    " a heal also counts what it reads and writes in its store. For --store, counts what all jobs together read from"
    " the store and write to it.",
)
@option(
    "--max-requests",
    type=OrWord(WholeNumber(1, MOST_REQUESTS), "none", "default"),
    metavar="N",
    section=LIMITS,
    help="Requests per second, or none. Counts the requests of a job to each of its stores, or all requests to a store."
    " For a store, default restores the default of its kind; for S3 that is SNAPFERRY_S3_MAX_REQUESTS.",
)
@option(
    "-j",
    "--jobs",
    "in_flight",
    type=OrWord(WholeNumber(1, MOST_IN_FLIGHT), "none"),
    metavar="N",
    section=LIMITS,
    help="Objects in flight at once, or none.",
)
@option("--none", "no_limits", is_flag=True, section=LIMITS, help="Remove all limits.")
@json_option
@broker_option
def limit() -> None:
    """
    Limit the throughput of a job or a store.

    A limit applies to all workers together, within a few seconds. Limits that
    you do not name stay as they are. If you name no limit, the command shows the
    limits of JOB or of STORE, or the limits that were set for any store.
    """
