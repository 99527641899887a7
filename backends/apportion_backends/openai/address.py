"""Addresses of servers, and the keys that they ask for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from apportion.errors import InputError

__all__ = ["KEY_VARIABLE", "Address", "Key", "find_key"]

KEY_VARIABLE = "APPORTION_API_KEY"
"""The environment variable that holds the key of a server."""
OPENAI_VARIABLE, OPENAI_HOST = "OPENAI_API_KEY", "openai.com"


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server.

    Attributes:
        base: the address of its API, such as ``http://localhost:8000/v1``, without a slash at the end.
    """

    base: str

    @classmethod
    def of(cls, source: str) -> Address:
        """The address that a user gave; ``/v1`` is added to one without a path.

        Raises:
            InputError: it is not the address of an API.
        """
        parts = urlsplit(source)
        if parts.query or parts.fragment:
            raise InputError(
                f"The address of a server ends with its path, such as /v1; what follows ? or # in {parts.hostname}'s "
                "does not belong to it."
            )
        path = parts.path.rstrip("/") or "/v1"
        return cls(f"{parts.scheme}://{parts.netloc}{path}")

    @property
    def root(self) -> str:
        """The address of the server itself, where engines have APIs of their own."""
        return self.base.removesuffix("/v1")

    @property
    def host(self) -> str:
        """The host, with its port if it has one."""
        return urlsplit(self.base).netloc


class Key:
    """A secret, which appears in nothing that is printed, compared or pickled.

    Args:
        value: the key.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Key(…)"

    def __reduce__(self) -> str:
        raise TypeError("A key cannot be pickled.")

    def headers(self) -> dict[str, str]:
        """The header that carries it."""
        return {"Authorization": f"Bearer {self._value}"}

    def without(self, text: str) -> str:
        """A text of the server's, in which the key does not appear."""
        return text.replace(self._value, "…")


def find_key(address: Address, variable: str | None, file: str | Path | None) -> Key | None:
    """The key of a server, from a file or the environment; ``None`` if there is none.

    Args:
        address: the server. ``OPENAI_API_KEY`` is only used for OpenAI's own.
        variable: name of the environment variable, if a user gave one.
        file: file that holds nothing but the key, if a user gave one.

    Raises:
        InputError: there is no such variable or file, or the key has characters that no header can have.
    """
    if variable is not None and file is not None:
        raise InputError("The key of the server is given twice: as key_variable= and as key_file=.")
    if file is not None:
        where = f"key_file={str(file)!r}"
        try:
            found = Path(file).expanduser().read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            # Without the error itself, which may quote the file.
            why = getattr(error, "strerror", None) or type(error).__name__
            raise InputError(f"{where} cannot be read: {why}.") from None
        return _checked(found, where)
    if variable is not None:
        return _checked(os.environ.get(variable, "").strip(), f"The environment variable {variable}")
    names = [KEY_VARIABLE]
    if f".{address.host.rsplit(':', 1)[0]}".endswith(f".{OPENAI_HOST}"):
        names.append(OPENAI_VARIABLE)
    for name in names:
        value = os.environ.get(name, "").strip()
        if value:
            return _checked(value, f"The environment variable {name}")
    return None


def _checked(value: str, where: str) -> Key:
    if not value:
        raise InputError(f"{where} is empty or not set; it must hold the key of the server.")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise InputError(f"{where} holds characters that a key cannot have, such as spaces or line breaks.")
    return Key(value)
