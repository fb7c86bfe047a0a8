"""
Plans of jobs whose source or destination is a tree of files.

    file_planner  files -> plan
    pull_plan     the plan of a pull
    push_plan     the plan of a push
    apart         whether a tree and a store are in each other
    listing_file  what the walk of a push found, in a file of this machine
"""
