#!/usr/bin/env python3
"""One slow server of three: nginx's `least_conn` beside Forebay's `least_time`, by what their clients wait.

Three origins answer after a fixed time, one of them ten times later than the others. The same steady load of GETs that
nothing stores goes through both proxies in alternating rounds; the figures are of all requests of all rounds but the
first, in which both learn. Requests start when they are due, whatever became of those before, so that a slow answer
does not hold back the load. Needs Linux, two cores, nginx, and a release build (another binary: FOREBAY=path).
The exit status is 1 if a request failed; a target that is missed is said, and no failure: machines differ.
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from processes import Failure, forebay_binary, free_port, whole_machine
from proxies import nginx

FAST_MS, SLOW_MS = 5, 50
# p99 of `least_time`, by that of `least_conn`.
TARGET = 0.5
# A request that takes longer has failed.
REQUEST_SECONDS = 5
REQUEST = b"GET /slow-server HTTP/1.1\r\nHost: bench.example\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok"


class Origin(asyncio.Protocol):
    """Answers each request head after its time; requests have no bodies and do not follow each other unanswered."""

    def __init__(self, delay):
        self.delay, self.pending = delay, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.pending += data
        if self.pending.endswith(b"\r\n\r\n"):
            self.pending = b""
            asyncio.get_running_loop().call_later(self.delay, self.answer)

    def answer(self):
        if not self.transport.is_closing():
            self.transport.write(ANSWER)


async def serve(port, delay):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Origin(delay), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def ask(idle, port, waits, failures):
    """One request over a connection that is kept, or a new one; what it waited since it was due, in seconds."""
    began = time.monotonic()
    writer = None
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise Failure(head.split(b"\r\n")[0].decode(errors="replace"))
            if await reader.readexactly(2) != b"ok":
                raise Failure("another body")
    except (OSError, EOFError, TimeoutError, Failure) as error:
        failures.append(repr(error))
        if writer is not None:
            writer.close()
        return
    waits.append(time.monotonic() - began)
    idle.append((reader, writer))


async def load(port, rate, seconds):
    """Waits and failures of a steady load."""
    idle, waits, failures = [], [], []
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(rate * seconds):
            await asyncio.sleep(max(0, began + number / rate - time.monotonic()))
            group.create_task(ask(idle, port, waits, failures))
    for _, writer in idle:
        writer.close()
    return waits, failures


def start_nginx(machine, origins):
    servers = " ".join(f"server 127.0.0.1:{origin.port};" for origin in origins)
    return nginx(machine, "nginx", machine.proxy_core, {"http": free_port()}, f"""
    access_log off;
    upstream app {{ least_conn; {servers} keepalive 256; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {{ LISTEN location / {{ proxy_pass http://app; }} }}""")


def start_forebay(machine, origins, binary):
    port, servers = free_port(), ", ".join(f'"127.0.0.1:{origin.port}"' for origin in origins)
    conf = machine.scratch / "forebay.yaml"
    conf.write_text(f"""
listeners: [{{ address: "127.0.0.1:{port}" }}]
upstreams: {{ app: {{ servers: [{servers}], balance: least_time, keepalive: 256 }} }}
routes: [{{ name: app, match: {{ path_prefix: / }}, upstream: app }}]
metrics: {{ listen: "127.0.0.1:{free_port()}" }}
log: {{ access: false }}
server: {{ threads: 1 }}
""")
    return machine.start("forebay", {"http": port}, machine.proxy_core, [binary, "run", "--config", conf])


def quantile(waits, share):
    """In milliseconds."""
    return 1000 * sorted(waits)[min(len(waits) - 1, int(share * len(waits)))]


def compare(machine, options):
    script = Path(__file__).absolute()
    origins = []
    for number, delay in enumerate([FAST_MS, FAST_MS, SLOW_MS]):
        port = free_port()
        command = [sys.executable, script, "--serve", port, delay]
        origins.append(machine.start(f"origin-{number}", {"http": port}, machine.load_core, command))
    proxies = {
        "nginx least_conn": start_nginx(machine, origins),
        "forebay least_time": start_forebay(machine, origins, options.forebay),
    }
    waits, failures = {name: [] for name in proxies}, {name: [] for name in proxies}
    for number in range(1 + options.rounds):
        for name, proxy in proxies.items():
            of_round, failed = asyncio.run(load(proxy.port, options.rate, options.seconds if number else 1))
            failures[name] += failed
            if number:
                waits[name] += of_round
    print(f"{options.rate} requests/s; origins {FAST_MS}, {FAST_MS} and {SLOW_MS} ms; load average {os.getloadavg()[0]:.2f}")
    for name in proxies:
        if failures[name]:
            raise Failure(f"{name}: {len(failures[name])} failed, the first with {failures[name][0]}")
        p50, p99 = quantile(waits[name], 0.5), quantile(waits[name], 0.99)
        slow = sum(1000 * wait >= SLOW_MS for wait in waits[name]) / len(waits[name])
        print(f"{name:20} p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  {slow:6.2%} took {SLOW_MS} ms or more")
    theirs, ours = (quantile(waits[name], 0.99) for name in proxies)
    verdict = "met" if ours <= TARGET * theirs else "MISSED"
    print(f"p99 of least_time is {ours / theirs:.2f} of that of least_conn (at most {TARGET}: {verdict})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=300, help="requests a second (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="length of a round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per proxy (default %(default)s)")
    parser.add_argument("--serve", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        port, delay = options.serve
        asyncio.run(serve(port, delay / 1000))
        return
    if min(options.rate, options.seconds, options.rounds) < 1:
        parser.error("rate, seconds and rounds must be at least 1")
    options.forebay = forebay_binary()
    with whole_machine("slow", "one for the proxies, one for origins and load") as machine:
        compare(machine, options)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(f"slow_server: {failure}", file=sys.stderr)
        sys.exit(1)
