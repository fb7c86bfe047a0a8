"""
Deciding and showing: what turns a request into work, and work into an account.

    plan      objects -> batches; pure
    dispatch  batches -> Celery canvas; the only file that knows chords
    drive     the steps of a job: plan it, conclude it, hand out again what is missing
    tasks     thin Celery tasks around `drive`
    app       the Celery app with the tasks of both floors
    jobs      submit, status, cancel: the Python API
    embedded  a private fleet on this machine, gone when its owner ends
    doctor    what is wrong with a fleet, and with the stores of a copy
    progress  a job on the terminal
    report    how a job stands and how it ended, in words; documents: the same as JSON
    cli       arguments, exit codes, printing; no decisions
"""
