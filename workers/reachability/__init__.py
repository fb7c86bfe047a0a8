"""
Which worker cannot reach which store, as the whole fleet knows it through Redis.

A worker that finds a store away, or that a store refuses, records this problem. It then takes no batch that needs the
store until a check of the store succeeds. Its batches go to the parking queue of their job. Only workers that reach
both stores of the job take batches from there. If no live worker can, the job waits.

    sides           the two stores of a job
    store_problems  recorded: which worker has a problem with which store
    worker_roster   recorded: which workers are alive
    parked_jobs     recorded: jobs with parked batches, and how long they have waited
    giving_up       when a job that waits is given up
    outage          tell the outage of a store from the failure of an object
    store_check     check a store
    batch           what the reachability of its stores means for a batch
    parking         check unreachable stores, and decide which parked batches a worker takes
    parking_thread  the thread of a worker that does this

Records of one server share its clock (`clock`).
"""
