"""
Copy batches and publish snapshots.

    actions       the function that runs a batch, by the action of its job
    tasks         the Celery task: decode a message, copy the batch
    delivery      what to do with one delivered batch: lease it, copy it, account for it or requeue it
    copy_run      one run of a batch: open the stores, apply limits and budget, do its action
    batch_report  what a running batch reports to the ledger
    settle        account for a batch, and log its failures
    requeue       queue a task again
    parts/        copy a large object together with other workers
    transfer/     copy a batch of objects between two stores
    repairs       what is recorded of wrong objects and of what took their place
    commit        re-check snapshots and publish them
    time_limit    the soft time limit of a task
    describe      sizes, durations and outcomes for people
    words         the words for each action
"""
