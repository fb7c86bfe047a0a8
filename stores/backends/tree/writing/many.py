"""Write many short files of a tree, and make many visible, by the compiled extension if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, repeat

from snapferry.stores.backends.directory.native.extension import extension
from snapferry.stores.backends.directory.paths.root import Folder
from snapferry.stores.errors import StoreError
from snapferry.stores.manifest.tree_entries import TreeEntry

from .folders import TreeFolders
from .temporary import temporary_names
from .upload import TreeUpload, WrittenUpload


def write_many(folders: TreeFolders, files: Sequence[TreeEntry], data: Sequence[bytes]) -> list[TreeUpload]:
    """Return uploads of the first of *files*, written and finished: fewer or none where `TreeUpload` does the next."""
    compiled = extension()
    if compiled is None:
        return []
    # The references keep the directories open.
    above: list[Folder] = []
    parts = [file.path.rpartition("/") for file in files]
    for path, run in groupby(part[0] for part in parts):
        try:
            above += repeat(folders.folder(path), len(list(run)))
        except StoreError:
            break
    names = temporary_names(len(above))
    descriptors = [folder.descriptor for folder in above]
    modes = [file.mode for file in files[: len(above)]]
    count = compiled.write_many(descriptors, names, data[: len(above)], modes)
    return [
        WrittenUpload(folders, file, part[0], part[2], name)
        for file, part, name in zip(files[:count], parts[:count], names[:count], strict=True)
    ]


def show_many(uploads: Sequence[TreeUpload]) -> int:
    """Do `TreeUpload.show` of the first of *uploads*. Return how many: fewer or none where it must show the next."""
    compiled = extension()
    if compiled is None:
        return 0
    above: list[Folder] = []
    names, new_names = [], []
    for upload in uploads[: compiled.MOST_FILES]:
        renaming = upload.renaming()
        if renaming is None:
            break
        above.append(renaming[0])
        names.append(renaming[1])
        new_names.append(renaming[2])
    count = compiled.rename_many([folder.descriptor for folder in above], names, new_names, False)
    for upload in uploads[:count]:
        upload.shown()
    return count
