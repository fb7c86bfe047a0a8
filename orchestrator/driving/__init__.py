"""
The steps of a job.

    drive         look at the ledger and the stores, and do what comes next
    dispatch      batches -> Celery canvas; the only file that knows chords
    publish       publish the snapshots of each complete group
    prune         delete manifests that the source does not have
    lost_batches  queue lost batches again
    abandon       record as failed what will not end
    control       a job that is cancelled or paused while an orchestrator works on it
    store_outage  wait for a store that does not answer, within the job's patience
    reconcile     look after all open jobs
"""
