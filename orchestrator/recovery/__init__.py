"""
Recover from the loss of Redis: exports of job records and schedules, and what is made of them.

    document   the export, and how it is checked when it is read: an export may come from anybody
    collect    makes an export from Redis
    restore    records the ended jobs of an export, and submits those that had not ended
    schedules  the records of mirrors and scrubs in an export
    files      reads and writes the file
    keeper     keeps a file with the open jobs up to date, in an orchestrator
"""
