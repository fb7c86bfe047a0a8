"""
The doctor: what is wrong with a fleet and with the stores of a copy, and what to do about it.

    examine      all checks, in order
    fleet        checks of workers and orchestrators, by their own answers
    store_checks  checks of the stores, from each machine of the fleet
    tables       the stores of mirrors and scrubs
    open_jobs    checks of jobs that are paused or stuck
    result       the result of a check

A check changes nothing and leaves nothing behind.
"""

from .examine import examine
from .result import CheckResult, worst

__all__ = ["CheckResult", "examine", "worst"]
