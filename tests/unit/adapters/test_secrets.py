import io
import json
import logging
from pathlib import Path

import pytest

from mullet.adapters.secrets import Credentials, Redactor

CANARY = 'c4nary/"pass word"\\é'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    return folder


def put(folder: Path, name: str, text: str, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return path


def test_systemd_comes_first_and_the_folder_second(folder: Path, tmp_path: Path) -> None:
    system = tmp_path / "system"
    system.mkdir()
    put(system, "api-token", "from systemd\n", 0o440)
    put(folder, "api-token", "from the folder")
    put(folder, "mqtt", "two\nlines\r\n")
    credentials = Credentials(folder, Redactor(), {"CREDENTIALS_DIRECTORY": str(system)})
    assert credentials.lookup("api-token") == "from systemd"
    assert credentials.lookup("mqtt") == "two\nlines"
    assert credentials.lookup("nothing") is None
    assert Credentials(None, Redactor(), {}).lookup("api-token") is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_file_that_others_may_read_or_write_is_refused(folder: Path, mode: int) -> None:
    put(folder, "api-token", CANARY, mode)
    with pytest.raises(PermissionError, match="chmod 0600") as caught:
        Credentials(folder, Redactor(), {}).lookup("api-token")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("name", ["../passwd", "/etc/passwd", "", ".", "..", "a/b", "a\0b", "-x"])
def test_a_name_that_leaves_the_folder_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a credential"):
        Credentials(folder, Redactor(), {}).lookup(name)


def test_content_that_is_no_text_is_refused_unquoted(folder: Path) -> None:
    path = put(folder, "key", "")
    path.write_bytes(b"s3cret\xff")
    with pytest.raises(ValueError, match="no text") as caught:
        Credentials(folder, Redactor(), {}).lookup("key")
    assert "s3cret" not in str(caught.value)


def test_no_spelling_of_a_secret_reaches_the_log(folder: Path) -> None:
    put(folder, "canary", CANARY)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s %(extra_text)s", defaults={"extra_text": ""}))
    root = logging.Logger("root-of-this-test")
    root.addHandler(handler)
    redactor = Redactor()
    redactor.attach(root)
    secret = Credentials(folder, redactor, {}).lookup("canary")
    assert secret == CANARY
    root.warning("connecting with %s", secret)
    root.warning("connecting with %r", secret)
    root.warning(f"body {json.dumps({'password': secret})}")
    root.warning("GET /?p=c4nary%2F%22pass%20word%22%5C%C3%A9")
    root.warning("attached", extra={"extra_text": secret})
    root.warning("too %s few %s", secret)
    root.warning(f"stack {secret}", stack_info=True)
    try:
        raise ValueError(secret)
    except ValueError:
        root.exception("failed")
    logged = stream.getvalue()
    assert "c4nary" not in logged
    assert logged.count("***") >= 8
    assert "connecting with ***" in logged
    assert "ValueError: ***" in logged


def test_every_line_of_a_key_is_kept_out() -> None:
    redactor = Redactor()
    redactor.add("-----BEGIN KEY-----\nabcdefghijkl\nmnopqrstuvwx\n-----END KEY-----")
    assert redactor.redact("loaded abcdefghijkl and mnopqrstuvwx") == "loaded *** and ***"
    assert Redactor().redact("nothing to hide") == "nothing to hide"
