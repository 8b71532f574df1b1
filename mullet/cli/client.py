"""The way to a running daemon: where it listens, its token, and one request to its HTTP API."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

DEADLINE_S = 30.0
SYSTEM_HOME = Path("/var/lib/mullet")
"""Where systemd keeps the state of the service (StateDirectory=mullet)."""


class NoDaemon(Exception):
    """No daemon was found, or more than one, or it does not answer."""


class Refused(Exception):
    """The daemon answered no; `status` is the HTTP status."""

    def __init__(self, status: int, text: str, problems: tuple[str, ...] = ()) -> None:
        self.status = status
        self.problems = problems
        """Each thing that is wrong, where the daemon tells them apart."""
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon's address and the token that it wants."""

    url: str
    facility: str
    token: str | None
    """None: not known here. This machine may read without one; orders need it."""
    no_token: str = ""
    """Why the token is not known."""

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send one request beneath the facility's path and return the answer.

        Raises:
            NoDaemon: nothing answers there. Refused: it answered no.
        """
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=DEADLINE_S)
        headers = {"Accept": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        target = f"{parts.path.rstrip('/')}/v1/facilities/{quote(self.facility, safe='')}/{path}"
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise NoDaemon(f"{self.url} does not answer ({str(error) or type(error).__name__})") from error
        finally:
            connection.close()
        try:
            data = json.loads(text) if text else None
        except ValueError:
            raise NoDaemon(f"{self.url} answers {answer.status}, but no JSON: is this a mullet daemon?") from None
        if answer.status >= 400:
            raise self._refusal(answer.status, answer.reason, data)
        return data

    def _refusal(self, status: int, reason: str, data: Any) -> Refused:
        problem = data if isinstance(data, dict) else {}
        text = str(problem.get("detail") or reason)
        if status == 401 and self.token is None:
            text = f"{text} ({self.no_token})"
        fields = problem.get("problems")
        lines = [str(item.get("detail", "")) for item in fields] if isinstance(fields, list) else []
        return Refused(status, f"the daemon refuses: {text}", tuple(lines))


def segment(text: str) -> str:
    """Return a name as one part of a path."""
    return quote(text, safe="")


@dataclass(frozen=True, slots=True)
class _Note:
    """What a daemon wrote down about itself in its state folder."""

    folder: Path
    url: str
    facility: str
    pid: int


def state_homes() -> tuple[Path, ...]:
    """Return the folders beneath which facilities keep their state, in the order they are searched."""
    homes = [Path(part) for part in os.environ.get("STATE_DIRECTORY", "").split(":") if part]
    home = os.environ.get("XDG_STATE_HOME")
    homes.append((Path(home) if home else Path.home() / ".local" / "state") / "mullet")
    homes.append(SYSTEM_HOME)
    return tuple(dict.fromkeys(homes))


def find_daemon(url: str | None, token_file: Path | None, facility: str | None, state: Path | None) -> Daemon:
    """Return the daemon meant: the one at `url`, of a facility, of a state folder, or the only one that runs.

    Raises:
        NoDaemon: there is none, or it is not clear which.
    """
    notes = [item for item in _notes(state) if facility is None or item.facility == facility]
    if url is not None:
        here = next((item for item in notes if item.url.rstrip("/") == url.rstrip("/")), None)
        name = facility or (here.facility if here is not None else None)
        if name is None:
            raise NoDaemon("say which facility the daemon at --url controls: --facility NAME")
        return _daemon(url, name, token_file, here.folder if here is not None else None)
    if not notes:
        wanted = f" of facility {facility!r}" if facility is not None else ""
        where = str(state) if state is not None else ", ".join(str(home) for home in state_homes())
        raise NoDaemon(f"no running daemon{wanted} found (looked in {where}); start one, or give --state or --url")
    if len(notes) > 1:
        raise NoDaemon(f"several daemons run; say which: --facility {' or '.join(item.facility for item in notes)}")
    return _daemon(notes[0].url, notes[0].facility, token_file, notes[0].folder)


def _daemon(url: str, facility: str, token_file: Path | None, folder: Path | None) -> Daemon:
    path = token_file if token_file is not None else folder / "api-token" if folder is not None else None
    if path is None:
        return Daemon(url, facility, None, "its token is not known here; give --token-file FILE")
    try:
        return Daemon(url, facility, path.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        why = f"{path}: {getattr(error, 'strerror', None) or 'not a token'}"
    if token_file is not None:
        raise NoDaemon(why)
    return Daemon(url, facility, None, f"{why}; give --token-file FILE")


def _notes(state: Path | None) -> Iterator[_Note]:
    """Yield the daemons that say of themselves that they run, and whose process is alive."""
    folders = [state] if state is not None else [folder for home in state_homes() for folder in _folders(home)]
    for folder in folders:
        try:
            data = json.loads((folder / "api.json").read_text(encoding="utf-8"))
            found = _Note(folder, str(data["url"]), str(data["facility"]), int(data["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if _alive(found.pid):
            yield found


def _folders(home: Path) -> list[Path]:
    try:
        return sorted(path for path in home.iterdir() if path.is_dir())
    except OSError:
        return []


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
