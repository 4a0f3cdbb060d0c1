"""CONFIG: which server is asked, and with which key; kept in the user's own config folder, readable by them alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from workbench.errors import InputError

DEFAULT_HOST = "http://127.0.0.1:8730"


def folder() -> Path:
    """Where this user's settings are kept; the environment variable WORKBENCH_CONFIG names another folder."""
    import platformdirs

    return Path(os.environ.get("WORKBENCH_CONFIG") or platformdirs.user_config_path("workbench"))


class Api:
    """`CONFIG.API`: the server's address and the key for it."""

    def __init__(self, config: Config) -> None:
        self._config = config

    @property
    def HOST(self) -> str:
        """The server's address; the environment variable WORKBENCH_HOST goes before what was set."""
        return os.environ.get("WORKBENCH_HOST") or self._config._get("host") or DEFAULT_HOST

    @HOST.setter
    def HOST(self, host: str) -> None:
        self._config._set(host=address(host))

    @property
    def APIKEY(self) -> str | None:
        """The key; the environment variable WORKBENCH_API_KEY goes before what was set."""
        return os.environ.get("WORKBENCH_API_KEY") or self._config._get("api_key")

    @APIKEY.setter
    def APIKEY(self, key: str | None) -> None:
        self._config._set(api_key=key)

    @property
    def COMPRESS(self) -> bool:
        """Whether what is sent and what comes back is packed with zstd: on a slow line, time well spent."""
        return bool(self._config._get("compress"))

    @COMPRESS.setter
    def COMPRESS(self, compress: bool) -> None:
        self._config._set(compress=bool(compress))


class Config:
    """Settings for `remote=True`. What is assigned holds in this process; `save()` and `set_default_…` keep it.

    Example:
        >>> import workbench as wb
        >>> wb.CONFIG.API.HOST = "gpu.example.org:8730"
        >>> wb.CONFIG.API.HOST
        'http://gpu.example.org:8730'
        >>> wb.CONFIG.API.HOST = "http://127.0.0.1:8730"
    """

    def __init__(self) -> None:
        self.API = Api(self)
        self.show_status = True  # whether a line is printed for each status of a job
        self._own: dict[str, Any] = {}
        self._read: tuple[Any, dict[str, Any]] = (None, {})  # which file, of when, and what it says

    def set_default_api_key(self, key: str) -> None:
        """Keep a key for every later session, in a file that only its owner can read.

        Raises:
            InputError: no key.
        """
        if not isinstance(key, str) or not key.strip() or any(each.isspace() for each in key.strip()):
            raise InputError("an API key is one word, as the operator of the server gave it to you")
        self._set(api_key=key.strip())
        self._write(api_key=key.strip())

    def set_default_host(self, host: str) -> None:
        """Keep the server's address for every later session."""
        self.API.HOST = host
        self._write(host=address(host))

    def save(self) -> None:
        """Keep what was set in this process for every later one."""
        self._write(**self._own)

    @property
    def path(self) -> Path:
        """The file."""
        return folder() / "config.json"

    def _get(self, name: str) -> Any:
        return self._own[name] if name in self._own else self._kept().get(name)

    def _set(self, **values: Any) -> None:
        self._own |= values

    def _kept(self) -> dict[str, Any]:
        path = self.path
        try:
            found = path.stat()
            of = (path, found.st_ino, found.st_mtime_ns, found.st_size)
            if self._read[0] != of:
                self._read = of, json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise InputError(f"{path} is not JSON ({error}); mend it, or delete it") from error
        return self._read[1]

    def _write(self, **values: Any) -> None:
        kept = {**self._kept(), **values}
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self.path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, 0o600)  # also where another one left the file
        with os.fdopen(descriptor, "w") as file:
            json.dump(kept, file, indent=1)
        os.replace(new, self.path)

    def __repr__(self) -> str:
        return f"<CONFIG: {self.API.HOST}, {'with a key' if self.API.APIKEY else 'no key'}>"


def address(host: str) -> str:
    """A server's address with its scheme: `gpu:8730` → `http://gpu:8730`."""
    if not isinstance(host, str) or not host.strip():
        raise InputError('a server\'s address is text, as "http://gpu.example.org:8730"')
    host = host.strip().rstrip("/")
    return host if "://" in host else f"http://{host}"


CONFIG = Config()
