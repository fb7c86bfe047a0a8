"""
What happened to a job, for people and for programs.

    receipt        the final account of a job, snapshot by snapshot
    failures       the objects that failed, and what needs them
    measures       the figures of a job: counts, share, throughput, time left
    nodes          the workers and orchestrators of a fleet, and what a job lacks
    advice         what to do next about a job
    text/          a job in words
    documents      a job as JSON; store_documents: what is in stores
    progress/      a job on the terminal while it runs
    terminal       what a terminal can show
    fleet_metrics  metrics of the whole fleet
"""
