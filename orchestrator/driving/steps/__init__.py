"""
What a drive may do, in this order.

    plan      check the stores, plan the job; a dry run ends here
    requeue   queue lost batches again
    abandon   record as failed what will not end
    window    queue further batches
    publish   publish the snapshots of each complete group
    conclude  end the job
    names    carry the names of snapshots along
    verify    the same two steps of a job that only looks at objects
    heal      the same of a job that heals a store
    prune     delete manifests that the source does not have
"""
