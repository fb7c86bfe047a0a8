"""
Mirrors: jobs that are repeated on a schedule.

    schedule   entries of the schedule, their runs, and how they stand
    scheduler  RedBeat's scheduler, which writes only while it holds its lock
    report     how mirrors stand, in words and as JSON
"""
