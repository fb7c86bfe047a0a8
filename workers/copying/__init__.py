"""
Copy batches and publish snapshots.

    tasks         the thin Celery task
    transfer      copy a batch of objects
    sequential    copy a batch one object after the other
    commit        re-check snapshots and publish them
    batch_report  what a running batch reports to the ledger
    budget        keep a job within its budget
    time_limit    the soft time limit of a task
    describe      sizes, durations and outcomes for people
"""
