"""
The traffic of the fleet in the last day and month: bytes moved by each worker, and at each store.

Workers add what they moved; nobody has to be asked, and nothing is lost when a dashboard restarts.

    history     the record in Redis
    batch       what one run of a batch adds
"""
