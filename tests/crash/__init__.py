"""
Death of a process at every one of its writes.

    points    counts the writes of a process, and kills it before one of them
    process   does an action in a process of its own
    roles     all roles of a fleet in one process, which takes messages from a real Redis
    world     the stores and the Redis of an action, and what they hold in the end
    actions   the table of actions; schedule: that of the scheduler
    kill      kills an action at its points, completes it, and compares
"""
