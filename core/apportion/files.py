"""The cache folder, and files that are never left half-written."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import platformdirs

from apportion.errors import InputError

__all__ = ["cache_dir", "cached_json", "file_to_write", "keep_json", "write_atomically"]


def cache_dir() -> Path:
    """The user's cache folder for apportion, or ``APPORTION_CACHE`` if set. This function does not create it."""
    chosen = os.environ.get("APPORTION_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("apportion", appauthor=False))


def cached_json(folder: str, key: str) -> Any:
    """Read a value from the cache folder; ``None`` if it is not there or the file is damaged."""
    try:
        return json.loads(_cache_file(folder, key).read_bytes())
    except (OSError, ValueError):
        return None


def keep_json(folder: str, key: str, value: object) -> None:
    """Write a value to the cache folder. If that is impossible, it only has to be computed again next time."""
    path = _cache_file(folder, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(value).encode())
    except OSError:
        pass


def _cache_file(folder: str, key: str) -> Path:
    return cache_dir() / folder / f"{key}.json"


def file_to_write(argument: str, path: object) -> Path:
    """Check the path of a file that may not exist yet, and make it absolute so that ``chdir`` does not affect it.

    Args:
        argument: name of the argument, for messages, such as ``"cache"``.
        path: a ``str`` or ``Path``; ``~`` is the user's home folder.

    Raises:
        InputError: the path has another type, is a folder, or is in a folder that does not exist.
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
    except (OSError, RuntimeError) as error:  # no permission, or no home folder
        raise InputError(f"{argument}={str(path)!r} cannot be used: {error}.") from error
    return found


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees either the old content or all of the new content, even after Ctrl-C.

    Links are followed. A pipe or a device is written to directly.

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
        # mkstemp creates private files; a result should get the default permissions of a new file.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
