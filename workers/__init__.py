"""
One unit of work: what a worker of the fleet runs.

    app             makes the Celery app; importing it connects to nothing
    extras          packages that only some roles need, and how to install them
    faults          what is wrong with a value, in one line
    job_state       the state of a job
    queues          the queues, and the order in which batches run
    lua             loads and runs the Lua scripts of Redis
    messages        the messages that cross the broker: small, versioned, validated
    outcome         which objects of a batch were copied, present or failed
    private_folder  a temporary folder of this user's own
    settings/       the only reader of the environment; `snapferry.toml`
    broker/         Redis clients; the parts of Celery and kombu that are replaced
    copying/        the Celery task, and the plain functions that copy and publish
    ledger/         the record of jobs, in Redis
    limits/         limits that hold for the whole fleet
    reachability/   which worker cannot reach which store
    lifecycle/      start, heartbeat and shutdown of a worker
    telemetry/      logs, redaction, traces, metrics
    diagnosis/      the checks of `doctor` for Redis, stores and workers

Imports `stores`, never `orchestrator`.
"""
