"""Whole processes for end-to-end tests: a simulated facility, the daemon on it, the command line, their records."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML

from mullet.adapters.journal import JournalReader
from mullet.cli.client import NoDaemon, Refused, find_daemon
from mullet.ports import JournalError, JournalRow
from mullet_simulators.testing import find_subnet, require_pools_kept

T = TypeVar("T")

DATA = Path(__file__).with_name("data")
MULLET = Path(sys.executable).with_name("mullet")
UP_S = 40.0
"""A process is up within this time, even where others keep the machine busy."""
END_S = 15.0
LOOK_EVERY_S = 0.1
COMMAND_S = 30.0
TMPFS_BYTES = 16 * 1024 * 1024

MINERS = [f"wm-ai-{k:03d}" for k in range(1, 5)] + [f"wm-b-{k:03d}" for k in range(1, 9)]
ANTMINERS = [f"am-b-{k:03d}" for k in range(1, 7)]
GPUS = [f"gpu-{k:03d}" for k in range(1, 5)]


def wait_until(look: Callable[[], T], within_s: float, what: str, alive: Callable[[], None] = lambda: None) -> T:
    """Return the first true thing that `look` returns. Raises AssertionError if there is none within `within_s`."""
    until = time.monotonic() + within_s
    while True:
        alive()
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"not within {within_s:g} s: {what}; last look: {found!r}")
        time.sleep(LOOK_EVERY_S)


def stays(look: Callable[[], bool], for_s: float, what: str) -> None:
    """Return after `for_s`. Raises AssertionError as soon as `look` is false."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        assert look(), f"no longer: {what}"
        time.sleep(LOOK_EVERY_S)


class Process:
    """One process of the product, in a session of its own, with its output in files."""

    def __init__(self, arguments: Sequence[str | Path], log: Path) -> None:
        self.log = log
        self.started_at = time.time()
        with open(log, "ab") as out:
            self._popen = subprocess.Popen(
                [str(item) for item in arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its session."""
        return self._popen.pid

    def check_alive(self) -> None:
        """Raise AssertionError with what it said last if it has ended."""
        if self._popen.poll() is not None:
            raise AssertionError(f"ended with {self._popen.returncode}: {self.said()[-3000:]}")

    def said(self) -> str:
        """All that it has written."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM, within_s: float = END_S) -> int:
        """Send a signal, wait until it and all its children are gone, and return its exit code."""
        if self._popen.poll() is None:
            self._popen.send_signal(number)
        try:
            code = self._popen.wait(within_s)
            wait_until(lambda: not self.family(), within_s, f"children of process {self.pid} gone: {self.family()}")
        except (subprocess.TimeoutExpired, AssertionError) as error:
            self._clear_away()
            raise AssertionError(f"did not end cleanly: {error}\n{self.said()[-3000:]}") from None
        return code

    def close(self) -> None:
        """End it whatever its state; nothing of it is left."""
        if self._popen.poll() is None:
            self._popen.terminate()
        try:
            self._popen.wait(END_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._clear_away()

    def _clear_away(self) -> None:
        for pid in self.family():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if self._popen.poll() is None:
            self._popen.wait()

    def family(self) -> list[int]:
        """Living processes of its session (zombies have ended)."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            state, _, _, session = text.rpartition(") ")[2].split()[:4]
            if int(session) == self.pid and state not in "ZX":
                found.append(int(entry.name))
        return found

    def starved_s(self) -> float:
        """The longest that any process of its session has waited for a processor, where the kernel counts that."""
        waits = [0.0]
        for pid in self.family():
            try:
                waits.append(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9)
            except (OSError, IndexError, ValueError):
                continue
        return max(waits)


class Truth:
    """The truth log as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self, kind: str | None = None, since: float = 0.0) -> list[dict[str, Any]]:
        """Records of one type, or all, from an instant (Unix seconds) on."""
        found = []
        with open(self.path, encoding="utf-8") as file:
            for line in file:
                if not line.endswith("\n"):
                    break
                record = json.loads(line)
                if record["t"] >= since and kind in (None, record["type"]):
                    found.append(record)
        return found

    def requests(self, since: float = 0.0) -> list[dict[str, Any]]:
        """Control requests that devices received."""
        return self.records("request", since)

    def changes(self, since: float = 0.0) -> list[dict[str, Any]]:
        """Changes of a device's state or cap."""
        return [record for record in self.records(None, since) if record["type"] in ("state", "cap")]

    def last_power(self) -> dict[str, float]:
        """True watts of each load, latest sample."""
        names = list(self.records("header")[0]["loads"])
        samples = self.records("power")
        return dict(zip(names, samples[-1]["w"], strict=True)) if samples else {}


class Simulator:
    """`mullet simulate` on a subnet of its own."""

    def __init__(self, scenario: Path, folder: Path, subnet: int | None = None) -> None:
        self.subnet = find_subnet() if subnet is None else subnet
        self.truth = Truth(folder / "truth.jsonl")
        arguments = ["--subnet", str(self.subnet), "--truth", str(self.truth.path), "--parent-pid", str(os.getpid())]
        self.process = Process([MULLET, "simulate", scenario, *arguments], folder / "simulator.log")
        try:
            wait_until(lambda: '"ready": true' in self.process.said(), UP_S, "simulator up", self.process.check_alive)
        except AssertionError:
            self.process.close()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """Ask the control port. Raises AssertionError if it answers with an error."""
        with socket.create_connection((f"127.{self.subnet}.0.5", 8705), timeout=10.0) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as file:
                answer: dict[str, Any] = json.loads(file.readline())
        assert "error" not in answer, answer
        return answer

    def fault(self, load: str, fault: str) -> None:
        """Begin a fault of a load; "ok" ends it."""
        self.ask(op="fault", load=load, fault=fault)

    def server_fault(self, server: str, target: str | int, fault: str) -> None:
        """Begin a fault of a feed ("/price") or a meter (its unit); "ok" ends it."""
        self.ask(op="fault", server=server, target=target, fault=fault)

    def price(self, price_per_mwh: float, seconds: float) -> None:
        """Publish another price from now on."""
        self.ask(op="event", kind="price_spike", price_per_mwh=price_per_mwh, seconds=seconds)

    def states(self) -> dict[str, int]:
        """How many loads are truly in which state."""
        return dict(self.ask(op="status")["states"])

    def close(self) -> None:
        """End it. Raises AssertionError if its truth log holds a pool list that a request changed."""
        self.process.close()
        require_pools_kept(self.truth.path)


class Daemon:
    """`mullet run` on a policy, with its state folder."""

    def __init__(self, policy: Path, state: Path, log: Path, *options: str) -> None:
        self.state = state
        self.policy = policy
        self.process = Process([MULLET, "run", policy, "--state", state, "--port", "0", *options], log)

    def ask(self, path: str) -> Any:
        """Return what the local API answers, None while it does not."""
        try:
            if json.loads((self.state / "api.json").read_text())["pid"] != self.process.pid:
                return None
            return find_daemon(None, None, None, self.state).ask("GET", path)
        except (NoDaemon, Refused, OSError, ValueError):
            return None

    def status(self) -> dict[str, Any]:
        """The state after the latest tick; empty while there is none."""
        return self.ask("status") or {}

    def loads(self) -> dict[str, dict[str, Any]]:
        """One row per load."""
        page = self.ask("loads?limit=1000") or {"rows": []}
        return {row["id"]: row for row in page["rows"]}

    def alarms(self) -> dict[str, str]:
        """Alarms that stand: key and text."""
        return {alarm["key"]: alarm["text"] for alarm in self.status().get("alarms", ())}

    def wait(self, look: Callable[[], T], within_s: float, what: str) -> T:
        """As `wait_until`, and the daemon must live."""
        return wait_until(look, within_s, what, self.process.check_alive)

    def wait_ready(self, within_s: float = UP_S) -> float:
        """Return the seconds from the start of the process until control had begun, less those without a processor."""
        self.wait(lambda: self.status().get("ready"), within_s, "control has begun")
        return time.time() - self.process.started_at - self.process.starved_s()

    def wait_alarm(self, key: str, within_s: float, *parts: str) -> str:
        """Return the text of an alarm once it stands and holds all `parts`."""

        def look() -> str:
            text = self.alarms().get(key, "")
            return text if all(part in text for part in parts) else ""

        return self.wait(look, within_s, f"alarm {key} with {parts}, standing: {self.alarms()}")

    def wait_no_alarm(self, key: str, within_s: float) -> None:
        """Wait until an alarm no longer stands."""
        self.wait(lambda: bool(self.status()) and key not in self.alarms(), within_s, f"alarm {key} cleared")

    def rows(self, *kinds: str, after: int = 0) -> list[JournalRow]:
        """Rows of the journal, read beside the daemon."""
        try:
            return list(JournalReader(self.state / "journal.db").iterate(list(kinds) or None, after))
        except JournalError:
            return []

    def last_seq(self) -> int:
        """Sequence number of the journal's last row."""
        rows = self.rows()
        return rows[-1].seq if rows else 0

    def cli(self, *arguments: str) -> Any:
        """Run a command against this daemon with --json and return what it printed. Raises AssertionError."""
        code, out, err = run_mullet(*arguments, "--json", "--state", str(self.state))
        assert code == 0, f"mullet {' '.join(arguments)}: {code}: {err}{out}"
        return json.loads(out)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it and wait until it and its children are gone."""
        return self.process.end(number)


class FullDisk:
    """The disk beneath a state folder, which can be filled: a small tmpfs as root, else a limit on file sizes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._filler = folder / "filler"
        self._limits: tuple[int, int] | None = None
        self.mounted = os.geteuid() == 0 and (
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(folder)],
                capture_output=True,
                check=False,
            ).returncode
            == 0
        )

    def fill(self, pid: int) -> None:
        """Leave no room; `pid` is the process that shall find none."""
        if not self.mounted:
            self._limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, self._limits[1]))
            return
        with open(self._filler, "wb", buffering=0) as file:
            try:
                while file.write(bytes(65_536)) == 65_536:
                    continue
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self, pid: int) -> None:
        """Give the room back."""
        if self._limits is not None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, self._limits)
            self._limits = None
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Take the disk away."""
        if self.mounted:
            subprocess.run(["umount", str(self._folder)], capture_output=True, check=True)
            self.mounted = False


def run_mullet(*arguments: str | Path, within_s: float = COMMAND_S) -> tuple[int, str, str]:
    """Run the console script to its end; exit code, stdout, stderr."""
    done = subprocess.run(
        [str(MULLET), *(str(item) for item in arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=within_s,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Site:
    """The small facility of data/: one simulator, one policy, one state folder, and daemons one after another."""

    def __init__(self, folder: Path, scenario: Path | None = None) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.simulator = Simulator(scenario or DATA / "small.yaml", folder)
        self.truth = self.simulator.truth
        self.policy = folder / "policy.yaml"
        self.write_policy()
        self._daemons: list[Daemon] = []

    def write_policy(self, change: Callable[[str], str] = lambda text: text) -> None:
        """(Re)write the policy file of this site, on its own network."""
        text = (DATA / "policy.yaml").read_text().replace("127.77.", f"127.{self.simulator.subnet}.")
        self.policy.write_text(change(text))

    def start(self, *options: str) -> Daemon:
        """Start a daemon on the policy and the state folder."""
        daemon = Daemon(self.policy, self.state, self.folder / f"daemon-{len(self._daemons)}.log", *options)
        self._daemons.append(daemon)
        return daemon

    def order_auto(self) -> None:
        """Leave the operator's order "mode auto" in the state folder, as an earlier run would have."""
        from mullet.adapters.state import StateFile
        from mullet.domain.facility import Mode

        self.state.mkdir(parents=True, exist_ok=True)
        states = StateFile(self.state / "operator.json", Mode.AUTO)
        states.save(states.load())

    def wait_converged(self, daemon: Daemon, within_s: float = 60.0, quiet_s: float = 6.0) -> None:
        """Wait until control has begun, nothing is asked of any device for `quiet_s`, and none is on its way.

        A miner reaches a state seconds after the request for it; that change is none of what comes next.
        """
        daemon.wait_ready()

        def quiet() -> bool:
            status = daemon.status()
            if not status or status["pending"] or status["in_flight"]:
                return False
            since = time.time() - quiet_s
            if since <= daemon.process.started_at + 4.0 or self.truth.requests(since):
                return False
            return not {"starting", "stopping"} & set(self.simulator.states())

        daemon.wait(quiet, within_s, "nothing left to do")

    def close(self) -> None:
        """End every process of the site."""
        for daemon in self._daemons:
            daemon.process.close()
        self.simulator.close()


@contextmanager
def site(folder: Path, scenario: Path | None = None) -> Iterator[Site]:
    """Run a site until the block ends."""
    running = Site(folder, scenario)
    try:
        yield running
    finally:
        running.close()


def write_scenario(path: Path, **changes: Any) -> Path:
    """Write the small scenario with whole fields replaced; JSON is YAML."""
    scenario = YAML(typ="safe", pure=True).load((DATA / "small.yaml").read_text())
    path.write_text(json.dumps({**scenario, **changes}))
    return path


def services_at(requests_per_s: float) -> list[dict[str, Any]]:
    """The small scenario's services with another, steady demand."""
    services = YAML(typ="safe", pure=True).load((DATA / "small.yaml").read_text())["services"]
    return [{**service, "demand": [{"at": 0.0, "requests_per_s": requests_per_s}]} for service in services]


def loads_of(requests: Iterable[dict[str, Any]]) -> set[str]:
    """The loads that requests were made to."""
    return {str(record["load"]) for record in requests}
