"""
The commands.

    copy       sync, submit, plan
    inspect    jobs, status, watch, failures, receipt
    control    cancel, pause, continue, priority, retry, resume
    limit      limit
    mirrors    mirrors, scheduler
    fleet      worker, orchestrator
    flower     Flower, for the fleet
    dashboard  dashboard
    doctor     doctor
"""
