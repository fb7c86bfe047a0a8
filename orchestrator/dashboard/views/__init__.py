"""
The values of each page: plain functions from what is known of the fleet to what a template shows.

They read Redis and wait for nothing else. They raise what `jobs.Jobs` raises.

    sources  where the views get their values
    links    choices, and turning pages
    jobs     the list of jobs
    attention  what is wrong now, and what to do
    job      one job
    workers  the lists of workers and orchestrators
    schedules  the mirrors and scrubs that are in the schedule
"""
