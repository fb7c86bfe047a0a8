"""
Mirrors: jobs that are repeated on a schedule.

    schedule   the entries of the schedule
    scheduler  RedBeat's scheduler, which writes only while it holds its lock
    task       the Celery task: queue the job of a mirror that is due
    status     how mirrors stand
    report     the same in words and as JSON
"""
