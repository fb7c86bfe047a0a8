"""
Redis as the broker, and what is replaced of Celery and kombu.

    connection          Redis clients, what is an outage, and what is refused of a Redis server
    transport           kombu's Redis transport, with its own key names, patient through an outage
    consumer            Celery's consumer, which no message can end
    message_validation  messages that no worker can read, set aside
    task_request        Celery's request of a task, with the job it belongs to
    result_backend      Celery's Redis result backend, patient through an outage
    upgrade             what an earlier version left in Redis under other names
"""
