"""
Forms that change jobs: pause, continue, cancel, retry, resume, priority and limits.

*off by default*: without ``--control`` none of these addresses exists.
*only from these pages*: a request must come from a page of this dashboard, by its headers and by the token of its form.
*the commands' own way*: each act calls the method of `Jobs` that the command of the same name calls.
*on record*: each request, also a refused one, is one line of the log.

    handlers    requests to acts to answers
    acts        what each form does
    origin      whether a request comes from a page of this dashboard
    audit       the line of the log
"""
