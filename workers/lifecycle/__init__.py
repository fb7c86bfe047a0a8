"""
The life of a worker process.

    process_setup       open files, threads and warnings of Python
    thread_start        threads that cannot begin raise
    heartbeat           a repeated action beside the work
    orchestrator_roster  which orchestrators run, by what they announce
    rate_limited_tasks  batches that a worker has reserved and not started
    shutdown            what happens between SIGTERM and the end of the process
"""
