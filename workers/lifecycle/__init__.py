"""
A worker from its start to its end.

    process_setup       open files and warnings
    heartbeat           something done again and again beside the work
    rate_limited_tasks  batches that a worker holds and has not begun
    shutdown            what happens between SIGTERM and the end of a process
"""
