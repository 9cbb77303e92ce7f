"""Instructions for each request: they do not depend on what else the machine does, so a change shows even on a noisy one.

Counted by the processor (`perf stat`) where it may be asked, otherwise by valgrind's callgrind, which executes every instruction
of the program itself; then those of the kernel are missing.
"""

import re
import signal
import socket
import subprocess
import time

from processes import Failure, tool
from proxies import Setup, start_origin

WARM_UP = 2_000
COUNTED = 4_000
PATHS = {
    "hit 1 KiB": "/hit/1k",
    "hit 64 KiB": "/hit/64k",
    "304": "/hit/1k",
    "refusal": "/few/1k",
    "pass 1 KiB": "/pass/1k",
}
# Under valgrind everything takes fifty times as long.
START_SECONDS = 120


def compare(machine, options, report):
    if options.forebay is None:
        return
    counting, count = ("perf stat", by_perf) if perf_counts() else ("callgrind", by_callgrind)
    found = count(machine, options)
    machine.stop_all()
    report.title(f"Instructions of Forebay for each request ({counting})")
    columns = sorted({space for counts in found.values() for space in counts}, reverse=True)
    rows = [["", *columns]]
    for kind, counts in found.items():
        rows.append([kind, *(f"{counts[space]:,.0f}" for space in columns)])
    report.table(rows)


def perf_counts():
    """Whether there is a processor's counter to read."""
    try:
        command = [tool("perf"), "stat", "-x,", "-e", "instructions:u", "true"]
    except Failure:
        return False
    return "not" not in subprocess.run(command, capture_output=True, text=True).stderr


def by_perf(machine, options):
    origin = start_origin(machine)
    proxy = Setup(machine, options.forebay).start("forebay", origin)
    found = {}
    for kind, path in PATHS.items():
        connection = Connection(proxy, kind, path)
        connection.ask(WARM_UP)
        pids = ",".join(map(str, proxy.pids()))
        perf = subprocess.Popen(
            [tool("perf"), "stat", "-x,", "-e", "instructions:u,instructions:k", "-p", pids],
            stderr=subprocess.PIPE,
            text=True,
        )
        # Until it has attached itself; what it misses of the first requests is no part of the rest.
        time.sleep(0.5)
        connection.ask(10 * COUNTED)
        perf.send_signal(signal.SIGINT)
        for line in perf.communicate()[1].splitlines():
            count, _, event, *_ = line.split(",")
            space = "user" if event.endswith("u") else "kernel"
            found.setdefault(kind, {})[space] = int(count) / (10 * COUNTED)
    return found


def by_callgrind(machine, options):
    origin = start_origin(machine)
    out = machine.scratch / "callgrind.out"
    wrapped = [tool("valgrind"), "--tool=callgrind", f"--callgrind-out-file={out}", "--"]
    setup = Setup(machine, options.forebay, before=wrapped)
    proxy = setup.start("forebay", origin)
    found = {}
    for kind, path in PATHS.items():
        connection = Connection(proxy, kind, path)
        connection.ask(WARM_UP // 10)
        counts = []
        # The difference of two runs: what happens once, and beside the requests, falls away.
        for requests in (COUNTED // 10, COUNTED // 5):
            control("--zero", proxy)
            connection.ask(requests)
            before = set(machine.scratch.glob("callgrind.out*"))
            control("--dump", proxy)
            counts.append(dumped(machine, before))
        found[kind] = {"user": (counts[1] - counts[0]) / (COUNTED // 10)}
        connection.close()
    return found


def control(what, proxy):
    command = [tool("callgrind_control"), what, str(proxy.process.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS)
    if done.returncode != 0:
        raise Failure(f"callgrind_control: {done.stdout}{done.stderr}")


def dumped(machine, before):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for file in set(machine.scratch.glob("callgrind.out*")) - before:
            if total := re.search(r"^totals: (\d+)", file.read_text(), re.MULTILINE):
                return int(total[1])
        time.sleep(0.05)
    raise Failure("callgrind wrote nothing")


class Connection:
    """One connection, one request after another."""

    def __init__(self, proxy, kind, path):
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=START_SECONDS)
        unmodified = "If-Modified-Since: Fri, 01 Jan 2038 00:00:00 GMT\r\n" if kind == "304" else ""
        self.request = f"GET {path} HTTP/1.1\r\nHost: bench.example\r\n{unmodified}\r\n".encode()

    def ask(self, count):
        for _ in range(count):
            self.socket.sendall(self.request)
            self.read_response()

    def read_response(self):
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.more()
        head, _, body = received.partition(b"\r\n\r\n")
        if not head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 304 ", b"HTTP/1.1 429 ")):
            raise Failure(f"not the answer that was expected: {head.decode(errors='replace')}")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        left = int(length[1]) - len(body) if length and b" 304 " not in head[:13] else 0
        while left > 0:
            left -= len(self.more())

    def more(self):
        data = self.socket.recv(1 << 16)
        if not data:
            raise Failure("the connection was closed")
        return data

    def close(self):
        self.socket.close()
