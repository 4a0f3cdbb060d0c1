"""Auth: who is asking. Keys are kept as hashes in a file, one a line: a name, and the key's sha256."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
from pathlib import Path

from workbench.errors import InputError

LOG = logging.getLogger("workbench.server")

ANYONE = "anyone"
"""Who asks a server that has no keys; it listens on this machine alone."""

_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\w.@-]{1,64}")


class Keys:
    """The keys of a file, or none.

    Raises:
        InputError: a line that is no key.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._read_at = 0
        self._names: dict[bytes, str] = {}
        self._fault = ""
        if path is not None:
            self._read()

    @property
    def needed(self) -> bool:
        """Whether a key must be shown."""
        return self._path is not None

    def who(self, header: str | None) -> str | None:
        """The name of the key in an `Authorization: Bearer …` header; None for no key or a wrong one."""
        if self._path is None:
            return ANYONE
        kind, _, key = (header or "").partition(" ")
        if kind.lower() != "bearer" or not key:
            return None
        self._read_again()
        asked, found = hashed(key.strip()), None
        for known, name in self._names.items():  # all of them, so that the time tells nothing
            if hmac.compare_digest(asked, known):
                found = name
        return found

    def _read_again(self) -> None:
        """Read the file anew if it was changed: a key is given or taken without a restart.

        A line that is none is left out then, and told to the operator; who has no key by this is not let in.
        """
        try:
            self._read()
        except InputError as error:
            if str(error) != self._fault:
                LOG.error("%s", error)
            self._fault = str(error)

    def _read(self) -> None:
        assert self._path is not None
        try:
            changed = self._path.stat().st_mtime_ns
            if changed == self._read_at:
                return
            lines = self._path.read_text().splitlines()
        except OSError as error:
            self._names, self._read_at = {}, 0
            raise InputError(
                f"{self._path} cannot be read ({error.strerror}); make a key with: workbench key NAME --keys "
                f"{self._path}"
            ) from error
        self._names, self._read_at = {}, changed
        fault = None
        for number, line in enumerate(lines, 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            if len(words) != 2 or not _NAME.fullmatch(words[0]) or not _HASH.fullmatch(words[1]):
                fault = fault or number
                continue
            self._names[bytes.fromhex(words[1])] = words[0]
        if fault:
            raise InputError(
                f"{self._path} line {fault} is no key: a line is a name and the key's sha256, as written by "
                f"workbench key NAME --keys {self._path}"
            )
        self._fault = ""


def hashed(key: str) -> bytes:
    """What is kept of a key. A key has 256 random bits, so a plain hash cannot be guessed back."""
    return hashlib.sha256(key.encode()).digest()


def new_key(path: Path, name: str) -> str:
    """Make a key, keep its hash in the file, and give the key itself, which is shown this once.

    Raises:
        InputError: a name that is taken, or is no name.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a key; use letters, digits, and . _ - @")
    old = path.read_text() if path.exists() else ""
    if any(line.split()[:1] == [name] for line in old.splitlines()):
        raise InputError(f"{path} has a key for {name!r} already; delete its line to take it back, then make a new one")
    key = "wb-" + secrets.token_urlsafe(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a") as file:
        file.write(("" if not old or old.endswith("\n") else "\n") + f"{name} {hashed(key).hex()}\n")
    return key
