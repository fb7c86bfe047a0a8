"""
``python -m benchmarks.one_part ARGUMENTS`` is ``snapferry ARGUMENTS`` with processes that copy one part at a time.

So each process of a fleet has one range or one part in flight, over connections of limited speed.
"""

from __future__ import annotations

import sys

from snapferry.workers.copying.parts import sizes

# In small, the object is smaller than what is copied in parts.
LARGE_BYTES = 64 * 1024 * 1024


def main() -> None:
    """Run the command line."""
    sizes.PARTS_IN_FLIGHT = 1
    sizes.LARGE_BYTES = LARGE_BYTES
    from snapferry.orchestrator.cli import main

    sys.exit(main())


if __name__ == "__main__":
    main()
