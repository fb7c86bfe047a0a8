"""
One unit of work: what a worker of the fleet runs.

    settings        the only reader of the environment
    app             makes the Celery app; importing it connects to nothing
    messages        what crosses the broker: small, versioned, validated
    transfer        copy a batch of objects: plain functions
    commit          re-check a snapshot and publish it: plain functions
    ledger          the record of jobs, in Redis
    connection      Redis clients, what is an outage, and what is refused of a Redis server
    transport       kombu's Redis transport, with names of its own, and patient
    vetting         messages that no worker can read, set aside
    consumer        Celery's consumer, which no message can end
    upgrade         what an earlier version left in Redis under other names
    process         what a process sets for itself: open files, warnings
    result_backend  Celery's Redis backend, patient through an outage
    logs            one form of log lines, of ours and of Celery's
    request         whose a line of Celery's main process is
    redaction       no secrets in them
    leaving         what happens between SIGTERM and the end of a process
    broker_check    what is to be known of Redis
    store_check     look at stores, in a process of its own
    checkup         what a worker says of itself when it is asked
    tasks           thin Celery tasks

Imports `stores`, never `orchestrator`.
"""
