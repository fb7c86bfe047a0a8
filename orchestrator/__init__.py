"""
Deciding and showing: what turns a request into work, and work into an account.

    jobs           submit, status, cancel: the Python API
    tasks          thin Celery tasks
    job_app        makes the Celery app with the tasks of jobs
    app            the same with mirrors and scrubs: the app of the whole fleet
    celery         that app, as ``celery -A snapferry.orchestrator`` finds it
    flower_config  Flower's settings
    flower_views   pages of Flower that find the tasks of a job
    periodic       work that is done every few seconds while a worker runs
    presence       an orchestrator announces itself in Redis
    quick_imports  imports the libraries of a command in less time
    deferred       modules that are executed at their first use
    embedded/      a fleet on this machine for one command, gone when the command ends
    planning/      which objects and snapshots, and in which batches
    driving/       the steps of a job
    reporting/     how a job stands and how it ended
    schedules/     jobs that are repeated on a schedule: mirrors and scrubs
    notify/        who is told of failures, recovery and lateness
    doctor/        what is wrong with a fleet, and with the stores of a copy
    dashboard/     pages about jobs; forms that change jobs where the operator allows them
    places/        where a text that names a store leads: URL, path or name
    client/        the Python API: submit jobs from a program, and follow them
    cli/           arguments, exit codes, printing; no decisions
"""
