"""
Large objects, of which several workers copy the parts.

    sizes    which objects are large, and how large their parts are
    claims   the parts that one process has claimed
    threads  the threads of a process that copy parts
    done     the parts that are done, by whomever
    owner    the worker that has the batch: begins or joins the copy, and makes the object visible
    asking   messages to other workers, which ask them to join
    joining  a worker that joins, or removes what is left of the copy of a job that has ended
"""
