"""
snapferry copies snapshots between content-addressed stores.

    stores        what a store is
    workers       one unit of work
    orchestrator  deciding and showing
    worker        the worker's Celery app: ``celery -A snapferry.worker``

Imports run one way: `orchestrator`, then `workers`, then `stores`.
"""
