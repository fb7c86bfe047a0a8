"""
Drive a job from its request to its end.

    drive          read the ledger and the stores, and take the next steps
    steps/         the steps
    outcome        what a drive came to, as values
    context        what the steps share
    control        a job that is cancelled or paused while it is driven
    ending         the final state of a job
    snapshot_rows  how each snapshot of a job stands
    dispatch       batches -> Celery canvas; the only file that knows chords
    store_outage   wait for a store that does not answer, within the job's patience
    reconcile      drive every open job that its chords do not drive
"""
