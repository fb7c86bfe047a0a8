"""
Metrics for Prometheus, if a port for them is set.

    catalogue   their names and meanings
    counters    what is counted, once for each batch or task
    exporter    the files that a worker's processes share, and the HTTP server of its main process

Nothing of Prometheus is imported, and nothing is counted, unless a worker or an
orchestrator was started with a port for its metrics.
"""
