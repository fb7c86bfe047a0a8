"""
Looking at stores: what snapshots hold, how they differ, and what no snapshot holds. Reads only.

    reading      many manifests, several at once
    sizes        files and bytes of snapshots and of a store
    differences  what differs between two snapshots, or between two stores
    paths        files and directories of a manifest, by their paths
    content      one object, verified before it is used
    orphans      objects that no manifest names
"""
