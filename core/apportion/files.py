"""Files: where the cache is, and how nothing is ever half written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

from apportion.errors import InputError

__all__ = ["cache_dir", "file_to_write", "write_atomically"]


def cache_dir() -> Path:
    """The user's cache folder for apportion; ``APPORTION_CACHE`` moves it. Not created here."""
    chosen = os.environ.get("APPORTION_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("apportion", appauthor=False))


def file_to_write(argument: str, path: object) -> Path:
    """A path that the user named for a file that may not exist yet; absolute, so that ``chdir`` does not move it.

    Args:
        argument: how messages call it, such as ``"cache"``.
        path: a ``str`` or ``Path``; ``~`` is the user's home.

    Raises:
        InputError: another type, a folder, or a file in a folder that does not exist.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in str(path):
        raise InputError(f"{argument}={path!r} must be the path of a file.")
    try:
        found = Path(os.fsdecode(path)).expanduser().absolute()
        if found.is_dir():
            raise InputError(f"{argument}={str(path)!r} is a folder. Name a file in it.")
        if not found.parent.is_dir():
            raise InputError(
                f"{argument}={str(path)!r}: there is no folder {found.parent}. Create it, or name another file."
            )
    except (OSError, RuntimeError) as error:  # no permission to look there; no home folder
        raise InputError(f"{argument}={str(path)!r} cannot be used: {error}.") from error
    return found


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, even after Ctrl-C.

    A link is followed. What is no regular file (a pipe, a device) is written to as it is.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes files private; a result should get the permissions of any new file.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
