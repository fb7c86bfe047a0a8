"""
The life of a worker process.

    process_setup       open files and warnings of Python
    heartbeat           a repeated action beside the work
    orchestrator_roster  which orchestrators run, by what they announce
    rate_limited_tasks  batches that a worker has reserved and not started
    shutdown            what happens between SIGTERM and the end of the process
"""
