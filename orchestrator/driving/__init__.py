"""
Drive a job from its request to its end.

    drive          read the ledger and the stores, and take the next steps
    steps/         the steps
    actions        the steps that differ by the action of a job
    outcome        the result of a drive, as values
    context        what the steps share
    control        a job that is cancelled or paused while it is driven
    ending         the final state of a job
    scrub          what a job of a scrub came to, for the state of the scrub
    snapshot_rows  the state of each snapshot of a job
    dispatch       batches -> Celery canvas; the only file that knows chords
    store_outage   wait for a store that does not answer, within the job's patience
    reconcile      drive every open job whose chord or driver was lost
"""
