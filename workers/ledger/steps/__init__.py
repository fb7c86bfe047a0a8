"""
The steps of the ledger, by what they are about. `Ledger` has them all.

    jobs        a job from its submission to its end
    driver      the orchestrator that drives a job
    leases      which worker runs which batch
    accounting  batches: what they copied
    budgets     what a job with a budget has spent
    parts       objects that several workers copy in parts
    groups      how snapshots ended, and missing objects that are copied again
    queues      tasks in queues of Celery
    listing     statuses of jobs, and lists of jobs
"""
