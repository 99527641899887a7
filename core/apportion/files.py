"""The cache folder, texts from files, and files that are never left half-written."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

import platformdirs

from apportion.errors import InputError, shown

__all__ = [
    "BOM",
    "cache_dir",
    "cached_json",
    "checked_path",
    "decoded",
    "file_digest",
    "file_to_write",
    "keep_json",
    "read_text",
    "write_atomically",
]

BOM = "\ufeff"
"""The mark with which some editors begin a text."""
_OTHER_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark is the beginning of this one
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b")


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


def file_digest(path: Path) -> str:
    """A hash of a file's content, remembered by path, size and time of change.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    about = repr((str(path.resolve()), state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    name = hashlib.blake2b(about.encode(), digest_size=16).hexdigest()
    known = cached_json("models/digests", name)
    if isinstance(known, str) and len(known) == 32:
        return known
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    keep_json("models/digests", name, found)
    return found


def _cache_file(folder: str, key: str) -> Path:
    return cache_dir() / folder / f"{key}.json"


def read_text(path: Path, name: str | None = None) -> str:
    """Read a UTF-8 text file; a byte order mark at its beginning is dropped, and line breaks stay as they are.

    Args:
        path: path of the file.
        name: name of the file in messages, such as ``"The prompt file a.txt"``; ``None`` for its path.

    Raises:
        OSError: the file cannot be read.
        InputError: the file is not UTF-8.
    """
    return decoded(path.read_bytes(), str(path) if name is None else name, path)


def decoded(content: bytes, name: str, path: Path | None = None) -> str:
    """Decode UTF-8; a byte order mark at the beginning is dropped.

    Args:
        content: bytes of a text.
        name: name of the text in messages, such as ``"The prompt on stdin"``.
        path: the file that they come from, if there is one.

    Raises:
        InputError: the bytes are not UTF-8. The message says what they look like, and how to convert them.
    """
    found = _utf16_or_32(content)
    if found is not None:
        raise InputError(f"{name} is not UTF-8 text; it looks like {found}. {_conversion(found, path)}")
    try:
        return content.decode().removeprefix(BOM)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text: {_why(error, path)}") from error


def _utf16_or_32(content: bytes) -> str | None:
    marked = next((name for mark, name in _OTHER_BOMS.items() if content.startswith(mark)), None)
    if marked is not None:
        return marked
    # Without a mark: most characters of Western texts have a zero in every second byte, which is valid UTF-8.
    half = len(content) // 2
    even, odd = content[::2].count(0), content[1::2].count(0)
    if half and max(even, odd) * 2 > half and min(even, odd) * 10 < half:
        return "UTF-16LE" if odd > even else "UTF-16BE"
    return None


def _why(error: UnicodeDecodeError, path: Path | None) -> str:
    content = error.object
    if error.end == len(content) and error.reason == "unexpected end of data":
        return "it ends in the middle of a character. Part of it may be missing."
    what = f"byte {error.start} is 0x{content[error.start]:02X}, and it looks like"
    if not _CONTROL.isdisjoint(content):
        return f"{what} a binary file."
    # Every printable character of Latin-1 is the same in Windows-1252.
    return f"{what} Latin-1, Windows-1252 or a similar encoding. {_conversion('WINDOWS-1252', path)}"


def _conversion(encoding: str, path: Path | None) -> str:
    """Advice to save a text as UTF-8."""
    if path is None:
        return f"Convert it before: … | iconv -f {encoding} -t UTF-8 | …"
    new = path.with_name(f"{path.stem}-utf8{path.suffix}")
    command = f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(new))}"
    return f"Save it as UTF-8 in an editor, or convert it: {command}"


def checked_path(argument: str, path: object) -> Path:
    """Check that an argument is the path of a file.

    Args:
        argument: name of the argument or function, for messages.
        path: a ``str`` or ``Path``.

    Raises:
        InputError: it has another type, is empty, or contains a NUL character.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in str(path):
        raise InputError(f"{argument}({shown(path)}): give the path of a file.")
    return Path(os.fsdecode(path))


def file_to_write(argument: str, path: object) -> Path:
    """Check the path of a file that may not exist yet, and make it absolute so that ``chdir`` does not affect it.

    Args:
        argument: name of the argument, for messages, such as ``"cache"``.
        path: a ``str`` or ``Path``; ``~`` is the user's home folder.

    Raises:
        InputError: the path has another type, is a folder, or is in a folder that does not exist.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in str(path):
        raise InputError(f"{argument}={shown(path)} must be the path of a file.")
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
