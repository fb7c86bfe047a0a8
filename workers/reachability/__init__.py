"""
Which worker cannot reach which store.

    records  what the fleet knows, in Redis
    outage   tell the outage of a store from the failure of an object
    batch    what it means for one batch
    parking  check unreachable stores, and take parked batches of other stores
"""
