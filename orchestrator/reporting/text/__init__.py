"""
A job in words.

    status       the state of a job, and rows of tables
    outcome      how a job ended
    dry_run      what a job would do
    interrupted  what a job that was interrupted has done
    drive        what a drive of a job did, for logs and task results
    failures     failed objects
    limits       limits of a job or a store
    options      options of a job, as on the command line
    stores       what is in stores
    format       times and URLs

Text from stores, such as paths, may hold anything: every line passes `printable`, so that none can control a terminal.
"""
