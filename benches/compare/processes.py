"""Servers: started on free ports, pinned to a core, watched, and ended by id."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 20
STOP_SECONDS = 10
SIZES = {"1k": 1024, "20k": 20 * 1024, "64k": 64 * 1024}


class Failure(Exception):
    """Something that the reader has to see and cure; ends the run."""


def tool(name):
    """The path of a program, also where an ordinary user's PATH does not look."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        raise Failure(f"{name} is missing: `make bench` installs it")
    return path


def forebay_binary():
    """The release build, or what FOREBAY names."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = Path(os.environ.get("FOREBAY", target / "release" / "forebay")).absolute()
    if not os.access(binary, os.X_OK):
        raise Failure(f"{binary} is no executable: run `cargo build --release`, or set FOREBAY")
    return binary


@contextlib.contextmanager
def whole_machine(name, uses):
    """A machine whose load core is this process's from now on; what was started on it is ended. `uses`: what two cores are for."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Failure(f"two cores are needed: {uses}")
    with tempfile.TemporaryDirectory(prefix=f"forebay-{name}-") as scratch:
        machine = Machine(Path(scratch), cores[0], cores[1])
        os.sched_setaffinity(0, {machine.load_core})
        try:
            yield machine
        finally:
            machine.stop_all()


def free_port():
    """A port below the kernel's ephemeral range, so that no outgoing connection takes it before it is bound."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = random.randrange(10_000, low)
        if port in free_port.given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        free_port.given.add(port)
        return port
    raise Failure(f"no free port between 10000 and {low}")


free_port.given = set()


@dataclass
class Server:
    """A running server: a process (and its children) that accepts on these ports, by what is spoken there."""

    name: str
    ports: dict
    process: subprocess.Popen
    log: Path

    @property
    def port(self):
        return self.ports["http"]

    def url(self, path, door="http"):
        """`door`: http, h2 (HTTP/2 with prior knowledge) or tls."""
        scheme = "https" if door == "tls" else "http"
        return f"{scheme}://127.0.0.1:{self.ports[door]}{path}"

    def pids(self):
        """The process and its descendants."""
        children = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            queue.extend(children.get(pid, []))
        return found

    def cpu_seconds(self):
        """User and system time of all its processes: what utime + stime of /proc/PID/stat say, but not in steps of
        10 ms. The clock's id is that of clock_getcpuclockid(3)."""
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.pids())

    def resident_bytes(self):
        """Resident memory (VmRSS) of all its processes."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * 1024
        return total

    def complaint(self, what):
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        return Failure(f"{self.name}: {what}\n{tail}")

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self.complaint(f"ended with {self.process.returncode} at start")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise self.complaint(f"does not accept on port {self.port} after {READY_SECONDS} s")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        # What is left of the group that was made for it, a worker that outlived its master included.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Machine:
    """Where things run: the scratch directory and the two cores. Ends what it started."""

    scratch: Path
    proxy_core: int
    load_core: int
    running: list = field(default_factory=list)

    def start(self, name, ports, core, command):
        log = self.scratch / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [tool("taskset"), "-c", str(core), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.scratch,
                start_new_session=True,
            )
        server = Server(name, ports, process, log)
        self.running.append(server)
        server.wait_until_ready()
        return server

    def stop(self, server):
        server.stop()
        self.running.remove(server)

    def stop_all(self):
        while self.running:
            self.running.pop().stop()

    def start_event_origin(self):
        port = free_port()
        script = Path(__file__).with_name("events.py")
        return self.start("event-origin", {"http": port}, self.load_core, [tool("python3"), script, port])
