"""Members of a stranger's tar."""

import tarfile


def members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """All members, in their order.

    Raises:
      tarfile.ReadError: one of them says that the next lies no further on: a size below zero, by which tarfile
        itself would go round for ever.
      Exception: whatever else tarfile makes of bytes that are no tar.
    """
    found, reached = [], -1
    for member in tar:
        if tar.offset <= reached:
            raise tarfile.ReadError(f"the member after {len(found)} has a size that leads back")
        reached = tar.offset
        found.append(member)
    return found
