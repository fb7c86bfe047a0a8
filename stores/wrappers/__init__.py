"""
Backends around backends. Each changes one thing.

    forwarding  the base of wrappers, which hands all calls on
    throttled   keeps to a rate limiter
"""
