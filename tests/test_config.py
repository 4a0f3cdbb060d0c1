"""CONFIG: where a server is, and the key for it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.remote.config import DEFAULT_HOST, Config, address


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path / "config"))
    for name in ("WORKBENCH_HOST", "WORKBENCH_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_key_is_kept_for_its_owner_alone() -> None:
    Config().set_default_api_key(" wb-secret ")
    later = Config()
    assert later.API.APIKEY == "wb-secret"
    assert stat.S_IMODE(later.path.stat().st_mode) == 0o600
    assert "wb-secret" not in repr(later)


def test_what_is_assigned_holds_here_and_is_kept_when_told_so() -> None:
    config = Config()
    assert config.API.HOST == DEFAULT_HOST
    config.API.HOST = "gpu.example.org:8730/"
    assert config.API.HOST == "http://gpu.example.org:8730"
    assert Config().API.HOST == DEFAULT_HOST
    config.save()
    assert Config().API.HOST == "http://gpu.example.org:8730"
    config.set_default_host("https://other")
    assert json.loads(config.path.read_text()) == {"host": "https://other"}


def test_what_another_process_keeps_is_seen() -> None:
    config = Config()
    for key in ("first", "second", "third"):
        Config().set_default_api_key(key)
        found = config.API.APIKEY
        assert found == key
    config.path.unlink()
    assert config.API.APIKEY is None


def test_the_surroundings_go_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Config().set_default_api_key("kept")
    monkeypatch.setenv("WORKBENCH_API_KEY", "given")
    monkeypatch.setenv("WORKBENCH_HOST", "http://there")
    assert (Config().API.APIKEY, Config().API.HOST) == ("given", "http://there")


def test_words_for_what_is_wrong() -> None:
    config = Config()
    with pytest.raises(InputError, match="an API key is one word"):
        config.set_default_api_key("two words")
    with pytest.raises(InputError, match="address is text"):
        address("")
    config.path.parent.mkdir()
    config.path.write_text("{")
    with pytest.raises(InputError, match=r"config\.json is not JSON"):
        _ = config.API.APIKEY
