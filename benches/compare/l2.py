#!/usr/bin/env python3
"""What the second tier costs: a hit out of Redis beside one out of memory, and what clients wait while Redis hangs.

Redis, the origin and the load share one core, Forebay has the other. For hits out of Redis L1 holds a few dozen of many
thousand responses of 1 KiB, which are asked for in random order. What Redis can give is measured by redis-benchmark in
Forebay's place: GETs of values of that size over as many connections, one at a time each, as requests come. Redis has its
core for itself then, while it shares it with the load when Forebay asks it. Hits in L1 with and without a second tier are
measured in short rounds in turn, and each compared with its neighbour, because machines change their pace within seconds.
Then Redis is stopped (SIGSTOP) under a steady load of hits and misses. Needs Linux, two cores, nginx, wrk, redis-server,
redis-benchmark, and a release build (another binary: FOREBAY=path). The exit status is 1 if a request failed;
a target that is missed is said, and no failure: machines differ.
"""

import argparse
import asyncio
import csv
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass

from load import MANY, fill, wrk
from processes import Failure, forebay_binary, free_port, tool, whole_machine
from proxies import doors, made_by_origin, nginx

CONNECTIONS = 64
RESPONSES = 20_000
BODY = 1024
DEADLINE_MS = 50
# CPU of a hit in L2, by that of one in L1 that takes the same way through the proxy.
MOST_CPU = 2.5
# Requests a second, by redis-benchmark's GETs.
LEAST_RATE = 0.6
# CPU of a hit in L1 with a second tier behind it, by that of one without: as far apart as two runs of the same may be.
MOST_L1 = 1.05
# Pairs of rounds of a second each for that.
PAIRS = 10
REQUEST_SECONDS = 5


def start_origin(machine):
    """/many/N is 1 KiB, fresh for an hour; /stale/N the same for a second; /miss/N is never stored twice."""
    file = machine.scratch / "body"
    file.write_bytes(bytes(random.Random(1).choices(b"abcdefghijklmnopqrstuvwxyz\n", k=BODY)))
    return nginx(machine, "origin", machine.load_core, doors("http"), f"""
    log_format one x;
    access_log off;
    open_file_cache max=100;
    server {{
        LISTEN
        location /many/ {{ rewrite ^ /made last; }}
        location = /made {{
            internal;
            alias {file};
            access_log {machine.scratch}/made.log one buffer=4k flush=100ms;
            add_header Cache-Control max-age=3600;
        }}
        location /stale/ {{ rewrite ^ /old last; }}
        location = /old {{ internal; alias {file}; add_header Cache-Control max-age=1; }}
    }}""")


def start_redis(machine):
    port = free_port()
    command = [tool("redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    return machine.start("redis", {"http": port}, machine.load_core, command)


def start_forebay(machine, name, origin, options, *, redis=None, memory="256MiB"):
    port, metrics = free_port(), free_port()
    second = f"redis: {{ url: 'redis://127.0.0.1:{redis.port}', deadline: {DEADLINE_MS}ms, prefix: '{name}:' }}" if redis else ""
    conf = machine.scratch / f"{name}.yaml"
    conf.write_text(f"""
listeners: [{{ address: "127.0.0.1:{port}" }}]
upstreams: {{ app: {{ servers: ["127.0.0.1:{origin.port}"], keepalive: 256 }} }}
routes: [{{ name: app, match: {{ path_prefix: / }}, upstream: app }}]
cache: {{ memory: {{ size: {memory} }}, {second} }}
metrics: {{ listen: "127.0.0.1:{metrics}" }}
log: {{ access: false }}
server: {{ threads: 1 }}
""")
    server = machine.start(name, {"http": port}, machine.proxy_core, [options.forebay, "run", "--config", conf])
    server.metrics = metrics
    if redis:
        wait_for(server, "forebay_coherence_followed", 1)
    return server


def metric(server, name):
    """The sum over all series that begin so."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(re.escape(name) + r"(?=[ {,}]|$)", line))


def wait_for(server, name, wanted):
    deadline = time.monotonic() + 20
    while metric(server, name) != wanted:
        if time.monotonic() > deadline:
            raise server.complaint(f"{name} is not {wanted}")
        time.sleep(0.05)


def l2_hits(server):
    return metric(server, 'forebay_cache_requests_total{route="app",result="hit_l2"')


@dataclass
class Way:
    """One kind of request, and what its rounds came to."""

    name: str
    server: object
    path: str = "/"
    script: str = ""
    fields: tuple = ()
    results: list = None

    def round(self, machine, seconds):
        result = wrk(
            machine, self.server, self.path, seconds=seconds, connections=CONNECTIONS, script=self.script, fields=self.fields
        )
        if result.errors:
            raise Failure(f"{self.name}: {result.errors} requests failed")
        self.results = [*(self.results or []), result]

    @property
    def cpu_us(self):
        return statistics.median(result.cpu_us for result in self.results)

    @property
    def rate(self):
        return statistics.median(result.rate for result in self.results)


def redis_benchmark(machine, redis):
    """GETs a second."""
    command = [tool("taskset"), "-c", machine.proxy_core, tool("redis-benchmark"), "-p", redis.port, "-c", CONNECTIONS]
    command += ["-d", BODY, "-r", RESPONSES, "-n", 150_000, "-t", "set,get", "--csv"]
    output = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    rates = {row[0]: float(row[1]) for row in csv.reader(output.splitlines()) if len(row) > 1 and row[0] in ("SET", "GET")}
    return rates["GET"]


def per_read(redis, load):
    """Commands that reach Redis together, on average, under a load."""
    def counted():
        stats = dict(line.split(":", 1) for line in redis_cli(redis, "INFO", "stats").splitlines() if ":" in line)
        return int(stats["total_commands_processed"]), int(stats["total_reads_processed"])
    commands, reads = counted()
    load()
    more_commands, more_reads = counted()
    return (more_commands - commands) / max(1, more_reads - reads)


def verdict(met):
    return "met" if met else "MISSED"


def costs(machine, options, origin):
    redis = start_redis(machine)
    alone = start_forebay(machine, "alone", origin, options)
    with_l2 = start_forebay(machine, "with_l2", origin, options, redis=redis)
    small = start_forebay(machine, "small", origin, options, redis=redis, memory="64KiB")
    made = made_by_origin(machine)
    fill(machine, small, RESPONSES, lambda: made_by_origin(machine) - made)
    ids = machine.scratch / "ids.txt"
    order = list(range(1, RESPONSES + 1))
    random.Random(2).shuffle(order)
    ids.write_text("\n".join(map(str, order)))
    wait_until_written(redis)
    ways = [
        fast := Way("in L1, no L2 configured", alone, "/many/1"),
        beside := Way("in L1, L2 behind it", with_l2, "/many/1"),
        slow := Way("in L1, decided with waiting", alone, "/stale/1", fields=("Cache-Control: max-stale",)),
        out := Way("in L2", small, "/", script=MANY % {"ids": ids}),
    ]
    # They are there, and the stale one is stale.
    for way in (fast, beside, slow):
        urllib.request.urlopen(way.server.url(way.path), timeout=5).read()
    time.sleep(2.1)
    with_by_without = in_turn(machine, fast, beside)
    before, asked = l2_hits(small), 0
    gets, together = [], []
    for _ in range(options.rounds):
        slow.round(machine, options.seconds)
        together.append(per_read(redis, lambda: out.round(machine, options.seconds)))
        asked += out.results[-1].requests
        gets.append(redis_benchmark(machine, redis))
    found = l2_hits(small) - before
    print(f"{BODY} bytes, {CONNECTIONS} connections; medians of {options.rounds} rounds; load average {os.getloadavg()[0]:.2f}")
    for way in ways:
        busy = statistics.median(result.busy for result in way.results)
        print(f"{way.name:28} {way.cpu_us:6.1f} µs  {way.rate:9.0f}/s  core {busy:.0%} busy")
    get = statistics.median(gets)
    print(f"{'redis-benchmark, GET':28} {'':9}  {get:9.0f}/s")
    print(f"of those in L2, {found / asked:.1%} were; commands in each read of Redis: {statistics.median(together):.1f}")
    ratio = out.cpu_us / slow.cpu_us
    print(f"CPU of a hit in L2 by one in L1 that is decided with waiting: {ratio:.2f} (at most {MOST_CPU}: {verdict(ratio <= MOST_CPU)})")
    ratio = out.rate / get
    print(f"rate by redis-benchmark's: {ratio:.2f} (at least {LEAST_RATE}: {verdict(ratio >= LEAST_RATE)})")
    low, ratio, high = statistics.quantiles(with_by_without, n=4)
    print(
        f"CPU of a hit in L1 with L2 by one without: {ratio:.3f}, half of {len(with_by_without)} pairs {low:.3f} to {high:.3f} "
        f"(at most {MOST_L1}: {verdict(ratio <= MOST_L1)})"
    )
    for server in (alone, with_l2, small, redis):
        machine.stop(server)


def in_turn(machine, one, other):
    """CPU of the other by that of the one, for pairs of rounds that follow each other."""
    ratios = []
    for number in range(PAIRS):
        for way in (one, other) if number % 2 == 0 else (other, one):
            way.round(machine, 1)
        ratios.append(other.results[-1].cpu_us / one.results[-1].cpu_us)
    return ratios


def wait_until_written(redis):
    """Until Redis has as many keys as it will have."""
    last = -1
    while (now := int(redis_cli(redis, "DBSIZE"))) != last or now < RESPONSES // 2:
        last = now
        time.sleep(0.5)


def redis_cli(redis, *command):
    call = [tool("redis-cli"), "-p", str(redis.port), *command]
    return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()


async def ask(idle, port, path, waits, failures, began):
    """One request over a connection that is kept, or a new one: when it was due, and what it waited since."""
    due = time.monotonic()
    writer = None
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: bench.example\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise Failure(head.split(b"\r\n")[0].decode(errors="replace"))
            await reader.readexactly(BODY)
    except (OSError, EOFError, TimeoutError, Failure) as error:
        failures.append(repr(error))
        if writer is not None:
            writer.close()
        return
    waits.append((due - began, time.monotonic() - due))
    idle.append((reader, writer))


async def steady(port, rate, seconds, at, what):
    """A steady load of as many hits as misses; `what` happens at that second."""
    idle, hits, misses, failures = [], [], [], []
    began, happened = time.monotonic(), False
    async with asyncio.TaskGroup() as group:
        for number in range(rate * seconds):
            await asyncio.sleep(max(0, began + number / rate - time.monotonic()))
            if not happened and time.monotonic() - began >= at:
                happened = True
                what()
            hit = number % 2 == 0
            path, waits = ("/many/1", hits) if hit else (f"/many/{100_000 + number}", misses)
            group.create_task(ask(idle, port, path, waits, failures, began))
    for _, writer in idle:
        writer.close()
    if failures:
        raise Failure(f"{len(failures)} requests failed, the first with {failures[0]}")
    return hits, misses


def quantile(waits, share):
    """In milliseconds."""
    return 1000 * sorted(waits)[min(len(waits) - 1, int(share * len(waits)))]


def hangs(machine, options, origin):
    redis = start_redis(machine)
    proxy = start_forebay(machine, "hanging", origin, options, redis=redis)
    urllib.request.urlopen(proxy.url("/many/1"), timeout=5).read()
    before = 4
    stop = lambda: os.kill(redis.process.pid, signal.SIGSTOP)
    hits, misses = asyncio.run(steady(proxy.port, options.rate, 2 * before, before, stop))
    os.kill(redis.process.pid, signal.SIGCONT)
    print(f"\nRedis is stopped under {options.rate} requests/s, half of them misses: p99 in ms")
    spans = {"before": (1, before), "first second": (before, before + 1), "after it": (before + 1, 2 * before)}
    p99 = {}
    for name, (begin, end) in spans.items():
        of = [[wait for due, wait in waits if begin <= due < end] for waits in (hits, misses)]
        p99[name] = [quantile(waits, 0.99) for waits in of]
        print(f"{name:14} hits {p99[name][0]:6.1f}  misses {p99[name][1]:6.1f}")
    # The load generator's own jitter.
    slack = 5
    least, most = p99["before"], DEADLINE_MS + slack
    print(f"hits unchanged: {verdict(max(p99['first second'][0], p99['after it'][0]) <= least[0] + slack)}")
    print(f"misses at most the deadline longer in the first second: {verdict(p99['first second'][1] <= least[1] + most)}")
    print(f"misses unchanged after it: {verdict(p99['after it'][1] <= least[1] + slack)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="length of a round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--rate", type=int, default=400, help="requests a second while Redis hangs (default %(default)s)")
    options = parser.parse_args()
    if min(options.rate, options.seconds, options.rounds) < 1:
        parser.error("rate, seconds and rounds must be at least 1")
    options.forebay = forebay_binary()
    with whole_machine("l2", "one for Forebay, one for Redis, the origin and the load") as machine:
        origin = start_origin(machine)
        costs(machine, options, origin)
        hangs(machine, options, origin)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(f"l2: {failure}", file=sys.stderr)
        sys.exit(1)
