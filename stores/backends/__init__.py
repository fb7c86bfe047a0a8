"""One module or folder for each kind of store. The `StoreKind` of each is in its `kind` module."""
