"""
Redis as the broker, and the parts of Celery and kombu that are replaced.

    connection          Redis clients, what counts as an outage, and which Redis servers are refused
    open_ledger         the ledger on the broker of the settings
    transport           kombu's Redis transport with its own key names, which waits through an outage
    consumer            Celery's consumer, which no message can end
    message_validation  find messages that no worker can read, and quarantine them
    task_request        Celery's request of a task, with the job in its log lines
    fork_gate           forks wait for threads that queue tasks
    result_backend      Celery's Redis result backend, which waits through an outage
    upgrade             restore what an earlier version left in Redis under other names
"""
