"""
Mirrors and scrubs: jobs that are repeated on a schedule.

    schedule      the entries of the schedule
    scheduler     RedBeat's scheduler, which writes only while it holds its lock
    task          the Celery tasks: queue the job of a mirror or a scrub that is due
    cycle         which part of a store the next run of a scrub reads
    status        how mirrors and scrubs stand
    settle        successes of mirrors and stores, from jobs that have ended
    watcher       the thread that settles jobs, and notices what does not run
    report        mirrors in words and as JSON
    scrub_report  scrubs in words and as JSON
"""
