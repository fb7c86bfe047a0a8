"""
The declarations of commands: names, options and help, without any library but click. Their bodies are in `run`.

    copy       sync, plan, submit
    control    cancel, pause, continue, priority, retry, resume
    limit      limit
    inspect    jobs, status, watch, failures, receipt
    schedules  mirrors, scrubs, scheduler
    look       ls, size, diff, show, cat, orphans
    doctor     doctor
    fleet      worker, orchestrator
    dashboard  dashboard
    flower     flower
    shell      completion, version
"""
