"""
One unit of work: what a worker of the fleet runs.

    app             makes the Celery app; importing it connects to nothing
    queues          which queues there are, and which batches go first
    lua             loads and runs the Lua scripts of Redis
    messages        what crosses the broker: small, versioned, validated
    outcome         which objects of a batch were copied, present or failed
    private_folder  a temporary folder of this user's own
    settings/       the only reader of the environment; `snapferry.toml`
    broker/         Redis clients; Celery's and kombu's parts that are replaced
    copying/        the Celery task, and the plain functions that copy and publish
    ledger/         the record of jobs, in Redis
    limits/         limits that the whole fleet keeps together
    reachability/   which worker cannot reach which store
    lifecycle/      start, heartbeat and shutdown of a worker
    telemetry/      logs, redaction, traces, metrics
    diagnosis/      what `doctor` asks of Redis, of stores and of a worker

Imports `stores`, never `orchestrator`.
"""
