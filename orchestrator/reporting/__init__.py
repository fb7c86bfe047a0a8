"""
How a job stands and how it ended.

    receipt        the account of a job, snapshot by snapshot
    failures       its dead letters
    report         the same in words for people
    documents      the same as JSON for programs
    progress       a job on the terminal
    fleet_metrics  the metrics of the whole fleet
"""
