"""
Death of a process at every one of its writes, and loss of power at every one of its system calls.

    points    counts the writes of a process, and kills it before one of them
    process   does an action in a process of its own
    roles     all roles of a fleet in one process, which takes messages from a real Redis
    world     the stores and the Redis of an action, and what they hold in the end
    actions   the table of actions; schedule: that of the scheduler
    kill      kills an action at its points, completes it, and compares

    trace     the system calls of a command, recorded with strace
    disk      what a disk may hold after a loss of power, by two models of file systems
    power     checks it
"""
