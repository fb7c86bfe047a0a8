"""
Read every object of a store again; replace wrong and missing ones from another store; read them again.

Usage: verify_and_heal.py [STORE [SOURCE]], by default backup and live of snapferry.toml. The fleet's Redis is
SNAPFERRY_BROKER_URL. Exit code 1 if something is still wrong.
"""

import sys

from snapferry import Client, JobFailed
from snapferry.orchestrator.client import status_line


def main(store: str = "backup", source: str = "live") -> int:
    """Return the exit code."""
    with Client() as client:
        verified = client.verify(store)
        try:
            print(status_line(verified.result()))
            return 0
        except JobFailed as error:
            print(error)
        for failure in verified.failures():
            print(" ", failure.error, *(path for _, path in failure.places))
        try:
            print(status_line(client.heal(store, [source]).result()))
            # Only what was wrong.
            print(status_line(verified.retry().result()))
        except JobFailed as error:
            print(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
