"""
The doctor: what is wrong with a fleet and with the stores of a copy, and what to do about it.

    examine    all of it, in order
    fleet      what workers and orchestrators say of themselves
    nodes      how the stores look from each machine
    open_jobs  jobs that are held, and that do not move
    line       what is said

Nothing is changed by being looked at, and nothing is left behind.
"""

from .examine import examine
from .line import Line, worst

__all__ = ["Line", "examine", "worst"]
