"""The servers that are compared: started on free ports, pinned to a core, watched, and ended by id."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

READY_SECONDS = 20
STOP_SECONDS = 10
# nginx and its workers, Forebay, and 4 sockets a stream in this program's own processes.
OPEN_FILES = 1 << 16

SIZES = {"1k": 1024, "20k": 20 * 1024, "64k": 64 * 1024}


class Failure(Exception):
    """Something that the reader has to see and cure; ends the run."""


def tool(name):
    """The path of a program, also where an ordinary user's PATH does not look."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        raise Failure(f"{name} is missing: `make bench` installs it")
    return path


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
    """A running server: a process (and its children) that accepts on `port`."""

    name: str
    port: int
    process: subprocess.Popen
    log: Path

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
    """Where things run: the scratch directory, the two cores, the binary. Ends what it started."""

    scratch: Path
    proxy_core: int
    load_core: int
    forebay: Path | None
    running: list = field(default_factory=list)

    def start(self, name, port, core, command):
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
        server = Server(name, port, process, log)
        self.running.append(server)
        server.wait_until_ready()
        return server

    def stop(self, server):
        server.stop()
        self.running.remove(server)

    def stop_all(self):
        while self.running:
            self.running.pop().stop()

    def start_nginx(self, name, core, http):
        port = free_port()
        home = self.scratch / name
        home.mkdir(exist_ok=True)
        conf = home / "nginx.conf"
        conf.write_text(nginx_conf(home, http.replace("LISTEN", f"127.0.0.1:{port} backlog=4096")))
        return self.start(name, port, core, [tool("nginx"), "-e", "stderr", "-p", home, "-c", conf])

    def start_origin(self):
        """Static files of all sizes, below /pass/ (`no-store`) and /hit/ (fresh for an hour)."""
        files = self.scratch / "files"
        files.mkdir(exist_ok=True)
        for name, size in SIZES.items():
            (files / name).write_bytes(bytes(random.Random(size).choices(b"abcdefghijklmnopqrstuvwxyz\n", k=size)))
        return self.start_nginx("origin", self.load_core, origin_conf(files))

    def start_event_origin(self):
        port = free_port()
        script = Path(__file__).with_name("events.py")
        return self.start("event-origin", port, self.load_core, [tool("python3"), script, port])

    def start_proxy(self, kind, origin):
        match kind:
            case "nginx":
                return self.start_nginx("nginx", self.proxy_core, proxy_conf(origin, access_log="off"))
            case "nginx+log":
                log = self.scratch / "nginx-access.log"
                return self.start_nginx("nginx+log", self.proxy_core, proxy_conf(origin, f"{log} combined"))
            case "forebay":
                return self.start_forebay(kind, origin, "false")
            case "forebay+log":
                log = self.scratch / "forebay-access.log"
                return self.start_forebay(kind, origin, f'{{format: combined, path: "{log}"}}')

    def start_forebay(self, name, origin, access):
        port = free_port()
        conf = self.scratch / f"{name}.yaml"
        conf.write_text(
            f'listeners: [{{address: "127.0.0.1:{port}"}}]\n'
            f'upstreams: {{app: {{servers: ["127.0.0.1:{origin.port}"], keepalive: 256}}}}\n'
            f'metrics: {{listen: "127.0.0.1:{free_port()}"}}\n'
            f"log: {{access: {access}}}\n"
            "server: {threads: 1}\n"
        )
        return self.start(name, port, self.proxy_core, [self.forebay, "run", "--config", conf])


def nginx_conf(home, http):
    # `user` is for root only; without root nginx warns about it. The paths are those that default to /var.
    user = "user root;" if os.geteuid() == 0 else ""
    paths = " ".join(f"{kind}_temp_path {home}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    return f"""
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {OPEN_FILES};
pid {home}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {OPEN_FILES // 2}; }}
http {{
    {paths}
    default_type text/plain;
    sendfile on;
    tcp_nodelay on;
    server_tokens off;
    keepalive_timeout 75s;
    keepalive_requests 100000000;
    {http}
}}
"""


def origin_conf(files):
    return f"""
    access_log off;
    open_file_cache max=100;
    etag off;
    server {{
        listen LISTEN;
        location /pass/ {{ alias {files}/; add_header Cache-Control no-store; }}
        location /hit/ {{ alias {files}/; add_header Cache-Control max-age=3600; }}
    }}
"""


def proxy_conf(origin, access_log):
    # What an operator writes: connections to the origin kept, the client's address passed on, event streams unbuffered.
    return f"""
    access_log {access_log};
    proxy_cache_path cache levels=1:2 keys_zone=hits:10m use_temp_path=off;
    upstream app {{ server 127.0.0.1:{origin.port}; keepalive 256; keepalive_requests 100000000; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    server {{
        listen LISTEN;
        location / {{ proxy_pass http://app; }}
        location /hit/ {{
            proxy_pass http://app;
            proxy_cache hits;
            proxy_cache_lock on;
            add_header Cache-Status $upstream_cache_status;
        }}
        location /events {{ proxy_pass http://app; proxy_buffering off; proxy_read_timeout 300s; }}
    }}
"""
