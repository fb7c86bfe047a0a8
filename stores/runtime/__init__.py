"""
Limits of a process, and how its work is interrupted.

    bounds        the most that is read from a store at a time
    oversize      how far an object may exceed its advisory size
    interruption  how the owner of some work stops it
    containment   unexpected exceptions become failures of one request
    liveness      the identity of a process, and whether it is dead
"""
