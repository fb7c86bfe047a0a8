"""
What a job would do, and what that would cost, without doing it; docs/json.md describes the documents.

    copying   a copy: asks the destination for every object
    objects   the requests that copy one object
    checking  verify and heal
    trees     push and pull
    figures   what all estimates have
"""
