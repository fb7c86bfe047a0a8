"""
How a process protects itself and the owner of its work.

    bounds        maxima of what is read from a store at a time
    oversize      how far an object may exceed its advisory size
    interruption  how the owner of some work stops it
    containment   unexpected exceptions become failures of one request
    liveness      the identity of a process, and whether it is dead
"""
