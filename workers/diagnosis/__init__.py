"""
What `doctor` asks of a node.

    broker_check    checks of the fleet's Redis
    store_check     checks of the stores of a copy, in a process of its own
    remote_control  what a worker answers to Celery's remote control
"""
