"""
The commands' bodies, in modules named as those of `commands`, which declare them.

A module is imported when its command runs, and imports all that the command needs, Celery among it, at its beginning.
"""
