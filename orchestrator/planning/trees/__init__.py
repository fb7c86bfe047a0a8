"""
Plans of jobs whose source or destination is a tree of files.

    file_planner  files -> plan
"""
