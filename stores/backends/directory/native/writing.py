"""Begin many uploads to a directory, and make many visible."""

from __future__ import annotations

from collections.abc import Sequence

from snapferry.stores.backends.directory.paths.root import Folder, sweep
from snapferry.stores.backends.directory.store_directory import StoreDirectory
from snapferry.stores.backends.directory.streams import FileUpload, WrittenUpload, temporary_names

from .extension import extension


def begin_many(directory: StoreDirectory, keys: Sequence[str], data: Sequence[bytes]) -> list[FileUpload]:
    """
    Return uploads of the first of *keys*, each written and finished. Fewer or none where `FileUpload` must do the next.

    Raises `StoreError` if there is no directory and none can be made.
    """
    compiled = extension()
    if compiled is None:
        return []
    root = directory.opened or directory.root(create=True)
    # The references keep the directories open.
    spaces: list[Folder] = []
    folders = []
    space, above = "", None
    for key in keys:
        path = key[: max(key.rfind("/"), 0)]
        # Nearly all keys of a call have the same first part.
        if above is None or not space or not path.startswith(space):
            try:
                space, above = root.space_of(path)
            except (OSError, ValueError):
                # ValueError: no name of a file.
                break
        spaces.append(above)
        folders.append(path[len(space) :])
    count = len(spaces)
    names = temporary_names(count)
    made = compiled.create_many(
        [each.descriptor for each in spaces], folders, root.folder_mode, names, data[:count], root.file_mode
    )
    uploads: list[FileUpload] = []
    for key, name, descriptor in zip(keys, names, made, strict=False):
        folder = descriptor if descriptor >= 0 else ~descriptor
        uploads.append(WrittenUpload(directory, key, folder, name))
        if folder != descriptor:
            sweep(folder)
    return uploads


def show_many(uploads: Sequence[FileUpload]) -> int:
    """Do `FileUpload.show` of the first of *uploads*. Return how many: fewer or none where it must show the next."""
    compiled = extension()
    if compiled is None:
        return 0
    folders, names, new_names = [], [], []
    for upload in uploads[: compiled.MOST_FILES]:
        renaming = upload.hand_over()
        if renaming is None:
            break
        folders.append(renaming[0])
        names.append(renaming[1])
        new_names.append(renaming[2])
    count = compiled.rename_many(folders, names, new_names, True)
    for upload in uploads[count : len(folders)]:
        upload.take_back()
    return count
