"""Many clients: connections from ten to ten thousand, idle ones, and a load as a real application has it."""

import contextlib
import http.client
import socket
import time

from events import Streams
from growth import SEED, zipf
from load import wrk
from proxies import MIB, Setup, made_by_origin, start_origin

CONNECTIONS = [10, 100, 1_000, 10_000]

# A thousand users who think for a moment between two requests, as long as that of an exponential distribution.
USERS = 1_000
THINK_MS = 120
RESOURCES = 20_000
STREAMS = 50
# In hundredths: reads that a cache may answer, reads of a user's own, writes.
READS, OWN = 85, 10
APP = """
math.randomseed(%(seed)d)
local reads, at = {}, 0
for id in io.lines("%(ids)s") do
    reads[#reads + 1] = "GET /many/" .. id .. " HTTP/1.1\\r\\nHost: bench.example\\r\\n\\r\\n"
end
local own = "GET /pass/1k HTTP/1.1\\r\\nHost: bench.example\\r\\nCookie: session=1\\r\\n\\r\\n"
local body = string.rep("x", 200)
local write = "POST /write HTTP/1.1\\r\\nHost: bench.example\\r\\nContent-Length: 200\\r\\n\\r\\n" .. body
request = function()
    local kind = math.random(100)
    if kind > %(own)d then return write end
    if kind > %(reads)d then return own end
    at = at %% #reads + 1
    return reads[at]
end
delay = function() return math.floor(-%(think)d * math.log(1 - math.random())) end
"""
# What such applications promise, in milliseconds, requests per second and hits among the reads.
P50, P95, P99 = 200, 1_000, 2_000
RATE = 1_000
HITS = 0.85


def compare_connections(machine, options, report):
    report.title("Connections: hits of 1 KiB")
    rows = [["proxy", "connections", "req/s", "CPU µs/req", "p50 ms", "p99 ms", "errors"]]
    origin = start_origin(machine)
    cpu = {}
    for name in options.proxies if not options.quick else {"nginx", "forebay"} & set(options.proxies):
        proxy = Setup(machine, options.forebay).start(name, origin)
        wrk(machine, proxy, "/hit/1k", seconds=1)
        for connections in CONNECTIONS if not options.quick else CONNECTIONS[::3]:
            # Ten thousand take a second to be opened.
            load = wrk(machine, proxy, "/hit/1k", seconds=max(2, options.seconds), connections=connections)
            rows.append([
                name,
                f"{connections:,}",
                f"{load.rate:.0f}",
                f"{load.cpu_us:.1f}",
                f"{load.p50_ms:.2f}",
                f"{load.p99_ms:.2f}",
                str(load.errors),
            ])
            cpu.setdefault(connections, {})[name] = load.cpu_us
            if name == "forebay" and load.errors:
                report.wrong(f"forebay: {load.errors} errors with {connections} connections")
        machine.stop(proxy)
    machine.stop_all()
    report.table(rows)
    shares = []
    for connections, found in cpu.items():
        rivals = [found[name] for name in ("nginx", "haproxy") if name in found]
        if rivals and "forebay" in found:
            shares.append(f"{found['forebay'] / min(rivals):.2f} with {connections:,}")
    if shares:
        report.note(f"Forebay's CPU, of the better of nginx and HAProxy: {', '.join(shares)} connections.")


def compare_idle(machine, options, report):
    report.title(f"Idle: {options.idle} keep-alive connections, a request each, then silence")
    rows = [["proxy", "still open", "MiB", "KiB/connection"]]
    origin = start_origin(machine)
    for name in options.proxies:
        proxy = Setup(machine, options.forebay).start(name, origin)
        for _ in range(8):
            keep_alive_connection(proxy).close()
        resident = proxy.resident_bytes()
        connections = [keep_alive_connection(proxy) for _ in range(options.idle)]
        time.sleep(1)
        resident = proxy.resident_bytes() - resident
        alive = sum(still_open(connection) for connection in connections)
        for connection in connections:
            connection.close()
        machine.stop(proxy)
        rows.append([name, str(alive), f"{resident / MIB:.1f}", f"{resident / 1024 / options.idle:.1f}"])
        if name == "forebay" and alive < options.idle:
            report.wrong(f"forebay: {options.idle - alive} idle connections were closed")
    machine.stop_all()
    report.table(rows)


def keep_alive_connection(proxy):
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    try:
        connection.request("GET", "/pass/1k")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        raise proxy.complaint(f"/pass/1k: {error!r}") from error
    return connection


def still_open(connection):
    if connection.sock is None:
        return False
    with contextlib.suppress(OSError):
        connection.sock.setblocking(False)
        try:
            connection.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
    return False


def compare_app(machine, options, report):
    report.title("A load like a real application's")
    report.note(
        f"{USERS:,} users who think {THINK_MS} ms on average; {READS} % reads of {RESOURCES:,} resources by Zipf's law,"
        f" {OWN} % reads of their own, {100 - READS - OWN} % writes; {STREAMS} event streams beside them."
    )
    ids = machine.scratch / "app-ids.txt"
    ids.write_text("\n".join(map(str, zipf(RESOURCES, 1.0, 400_000))))
    script = APP % {"seed": SEED, "ids": ids, "reads": READS, "own": READS + OWN, "think": THINK_MS}
    rows = [["proxy", "req/s", "p50 ms", "p95 ms", "p99 ms", "hits of the reads", "CPU µs/req", "delay of events p99 ms", "errors"]]
    for name in options.proxies:
        if name in ("nginx", "forebay"):
            rows.append(run_app(machine, options, report, name, script))
    report.table(rows)


def run_app(machine, options, report, name, script):
    origin, events = start_origin(machine), machine.start_event_origin()
    proxy = Setup(machine, options.forebay, events=events).start(name, origin)
    streams = Streams()
    streams.open(proxy.port, STREAMS)
    wrk(machine, proxy, seconds=2 * options.seconds, connections=USERS, script=script)
    made = made_by_origin(machine)
    # What came meanwhile waits in the sockets: its delay would be this program's own.
    streams.receive(0.1)
    with streams.in_background():
        load = wrk(machine, proxy, seconds=3 * options.seconds, connections=USERS, script=script)
    time.sleep(0.2)
    hits = 1 - (made_by_origin(machine) - made) / (load.requests * READS / 100)
    delays = sorted(streams.delays_ms)
    broken = streams.broken
    streams.close_all()
    machine.stop_all()
    if name == "forebay":
        if load.errors or broken:
            report.wrong(f"forebay: {load.errors} errors, {broken} broken streams")
        report.expect("application: p50 ms", load.p50_ms, P50)
        report.expect("application: p95 ms", load.p95_ms, P95)
        report.expect("application: p99 ms", load.p99_ms, P99)
        report.expect("application: 1,000 requests/s, of what was served", RATE / load.rate, 1.0)
        report.expect("application: misses among the reads", 1 - hits, 1 - HITS)
    return [
        name,
        f"{load.rate:.0f}",
        f"{load.p50_ms:.2f}",
        f"{load.p95_ms:.2f}",
        f"{load.p99_ms:.2f}",
        f"{hits:.1%}",
        f"{load.cpu_us:.1f}",
        f"{delays[len(delays) * 99 // 100]:.1f}" if delays else "-",
        str(load.errors + broken),
    ]
