#!/usr/bin/env python3
"""Forebay and nginx side by side, in one run: the same origin, the same load, one core each.

The proxy runs on one core, origin and load on another. Rounds alternate between the proxies, so that what else the
machine does meets all of them; the figures are medians over the rounds. CPU is user and system time of all processes
of the proxy. Needs Linux, two cores, nginx, wrk and Python 3.11; `make bench` installs them and builds Forebay first
(another binary: FOREBAY=path). The exit status is 1 if anything failed: a wrong answer, an error, a lost event.
"""

import argparse
import contextlib
import http.client
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from events import Streams
from processes import SIZES, Failure, Machine, tool

PROXIES = ["nginx", "nginx+log", "forebay", "forebay+log"]
LOADS = [f"{kind}-{size}" for kind in ["pass", "hit"] for size in SIZES]
SCENARIOS = [*LOADS, "streams", "idle"]
DEFAULT_SCENARIOS = ["pass-1k", "hit-1k", "hit-64k", "streams", "idle"]

# Latencies in microseconds; the last figure sums up what went wrong.
WRK_REPORT = """
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("report %d %d %d %d %d\\n", summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def main():
    options = parse_arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # What is running has to be ended, also when this program is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Failure("two cores are needed: one for the proxy, one for origin and load")
    with tempfile.TemporaryDirectory(prefix="forebay-compare-") as scratch:
        machine = Machine(Path(scratch), cores[0], cores[1], options.forebay)
        os.sched_setaffinity(0, {machine.load_core})
        print_setting(options, machine)
        sound = True
        try:
            for scenario in options.only:
                match scenario:
                    case "streams":
                        sound &= compare_streams(machine, options)
                    case "idle":
                        sound &= compare_idle(machine, options)
                    case _:
                        sound &= compare_load(machine, options, scenario)
        finally:
            machine.stop_all()
    return 0 if sound else 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive, default=5, help="length of a round (default %(default)s)")
    parser.add_argument("--rounds", type=positive, default=3, help="rounds per proxy (default %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=SCENARIOS, default=DEFAULT_SCENARIOS, help="scenarios (default: %(default)s)"
    )
    parser.add_argument(
        "--proxies", nargs="+", choices=PROXIES, default=PROXIES[:3], help="who takes part (default: %(default)s)"
    )
    parser.add_argument("--connections", type=positive, default=32, help="of wrk (default %(default)s)")
    parser.add_argument("--streams", type=positive, default=1000, help="concurrent streams (default %(default)s)")
    parser.add_argument("--idle", type=positive, default=1000, help="idle connections (default %(default)s)")
    options = parser.parse_args()
    options.forebay = forebay_binary(options)
    return options


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def forebay_binary(options):
    """The binary to measure. One that was only expected leaves Forebay out; one that was asked for has to be there."""
    if not any(proxy.startswith("forebay") for proxy in options.proxies):
        return None
    root = Path(__file__).resolve().parents[2]
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    binary = Path(os.environ.get("FOREBAY", target / "release" / "forebay")).absolute()
    if os.access(binary, os.X_OK):
        return binary
    if "FOREBAY" in os.environ or options.proxies != PROXIES[:3]:
        raise Failure(f"{binary} is no executable: run `cargo build --release`, or set FOREBAY")
    print(f"{binary} is not built: nginx alone", file=sys.stderr)
    options.proxies = [proxy for proxy in options.proxies if not proxy.startswith("forebay")]
    return None


def print_setting(options, machine):
    model = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown CPU"
    )
    nginx = subprocess.run([tool("nginx"), "-v"], capture_output=True, text=True).stderr.strip()
    print(f"{model}, Linux {os.uname().release}, {nginx.removeprefix('nginx version: ')}")
    print(f"proxy on core {machine.proxy_core}, origin and load on core {machine.load_core}")
    print(f"load average at start: {os.getloadavg()[0]:.2f} (figures are good for something when it is near 0)")
    print(f"medians of {options.rounds} rounds, {options.seconds} s each", flush=True)


def in_turn(options):
    """Every proxy once a round, in alternating order."""
    for number in range(options.rounds):
        yield from options.proxies if number % 2 == 0 else reversed(options.proxies)


# Requests


def compare_load(machine, options, scenario):
    kind, size = scenario.split("-")
    path = f"/{kind}/{size}"
    script = machine.scratch / "report.lua"
    script.write_text(WRK_REPORT)
    origin = machine.start_origin()
    proxies = {name: machine.start_proxy(name, origin) for name in options.proxies}
    for proxy in proxies.values():
        verify(machine, proxy, kind, size)
        run_wrk(options, script, proxy, path, seconds=1)
    rounds = {name: [] for name in proxies}
    for name in in_turn(options):
        rounds[name].append(run_wrk(options, script, proxies[name], path, options.seconds))
    machine.stop_all()

    what = "passed on, nothing stored" if kind == "pass" else "fresh hits"
    print_title(f"{scenario}: {SIZES[size] // 1024} KiB, {what}, {options.connections} connections")
    rows = [["proxy", "req/s", "p50 ms", "p99 ms", "errors", "CPU µs/req", "of nginx", "core busy"]]
    cpu = {name: median(r, "cpu_us") for name, r in rounds.items()}
    for name, results in rounds.items():
        rows.append([
            name,
            f"{median(results, 'rate'):.0f}",
            f"{median(results, 'p50_ms'):.2f}",
            f"{median(results, 'p99_ms'):.2f}",
            f"{sum(r['errors'] for r in results)}",
            f"{cpu[name]:.1f}",
            ratio(cpu, name),
            f"{median(results, 'busy'):.0%}",
        ])
    print_table(rows)
    return all(r["errors"] == 0 for results in rounds.values() for r in results)


def verify(machine, proxy, kind, size):
    """The same body as the file's, and from the cache where that is what is measured."""
    expected = (machine.scratch / "files" / size).read_bytes()
    client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    try:
        for _ in range(2):
            client.request("GET", f"/{kind}/{size}")
            response = client.getresponse()
            if response.status != 200 or response.read() != expected:
                raise proxy.complaint(f"/{kind}/{size}: status {response.status}, or not the file's bytes")
    except (OSError, http.client.HTTPException) as error:
        raise proxy.complaint(f"/{kind}/{size}: {error!r}") from error
    finally:
        client.close()
    status = response.getheader("Cache-Status", "")
    if ("hit" in status.lower()) != (kind == "hit"):
        raise proxy.complaint(f"/{kind}/{size}: second answer has Cache-Status {status!r}")


def run_wrk(options, script, proxy, path, seconds):
    before = proxy.cpu_seconds()
    command = ["-t1", f"-c{options.connections}", f"-d{seconds}s", "-s", script, f"http://127.0.0.1:{proxy.port}{path}"]
    output = subprocess.run(
        [tool("wrk"), *map(str, command)], capture_output=True, text=True, timeout=seconds + 30, check=True
    ).stdout
    cpu = proxy.cpu_seconds() - before
    report = next((line.split()[1:] for line in output.splitlines() if line.startswith("report ")), None)
    if report is None or report[0] == "0":
        raise proxy.complaint(f"no request succeeded\n{output}")
    requests, duration_us, p50_us, p99_us, errors = map(int, report)
    return {
        "rate": requests / duration_us * 1e6,
        "p50_ms": p50_us / 1e3,
        "p99_ms": p99_us / 1e3,
        "errors": errors,
        "cpu_us": cpu / requests * 1e6,
        "busy": cpu / duration_us * 1e6,
    }


# Event streams


def compare_streams(machine, options):
    proxies = ["direct", *options.proxies]
    rounds = {name: [] for name in proxies}
    for number in range(options.rounds):
        for name in proxies if number % 2 == 0 else reversed(proxies):
            rounds[name].append(run_streams(machine, options, name))

    print_title(f"streams: {options.streams} event streams opened at once, an event a second each")
    direct = rounds["direct"]
    cpu = {name: median(r, "cpu_us") for name, r in rounds.items() if name != "direct"}
    delivery = [["proxy", "delay p50 ms", "p99 ms", "added p50 ms", "added p99 ms", "broken streams"]]
    cost = [["proxy", "first byte p50 ms", "p99 ms", "all opened in ms", "KiB/stream", "CPU µs/event", "of nginx"]]
    for name, results in rounds.items():
        proxied = name != "direct"
        p50, p99 = median(results, "delay_p50"), median(results, "delay_p99")
        delivery.append([
            name,
            f"{p50:.2f}",
            f"{p99:.2f}",
            f"{p50 - median(direct, 'delay_p50'):.2f}" if proxied else "",
            f"{p99 - median(direct, 'delay_p99'):.2f}" if proxied else "",
            str(sum(r["broken"] for r in results)),
        ])
        cost.append([
            name,
            f"{median(results, 'first_p50'):.1f}",
            f"{median(results, 'first_p99'):.1f}",
            f"{median(results, 'opening_ms'):.0f}",
            f"{median(results, 'kib'):.1f}" if proxied else "",
            f"{cpu[name]:.1f}" if proxied else "",
            ratio(cpu, name) if proxied else "",
        ])
    print_table(delivery)
    print_table(cost)
    return all(r["broken"] == 0 for results in rounds.values() for r in results)


def run_streams(machine, options, name):
    origin = machine.start_event_origin()
    proxy = origin if name == "direct" else machine.start_proxy(name, origin)
    # The code and tables that the first streams touch are not what a stream costs.
    warm_up = Streams()
    warm_up.open(proxy.port, 8)
    warm_up.receive(1.2)
    warm_up.close_all()
    if warm_up.broken:
        raise proxy.complaint("/events: not an event stream that loses nothing")

    resident = proxy.resident_bytes()
    streams = Streams()
    try:
        streams.open(proxy.port, options.streams)
        # Until every stream had an event.
        streams.receive(1.2)
        cpu = proxy.cpu_seconds()
        streams.receive(options.seconds)
        cpu = proxy.cpu_seconds() - cpu
        resident = proxy.resident_bytes() - resident
    finally:
        streams.close_all()
    machine.stop_all()
    if not streams.delays_ms:
        raise proxy.complaint("/events: no stream delivered an event")
    return {
        "delay_p50": percentile(streams.delays_ms, 50),
        "delay_p99": percentile(streams.delays_ms, 99),
        "first_p50": percentile(streams.first_byte_ms, 50),
        "first_p99": percentile(streams.first_byte_ms, 99),
        "opening_ms": streams.opening_ms,
        "broken": streams.broken,
        "kib": resident / 1024 / options.streams,
        "cpu_us": cpu / len(streams.delays_ms) * 1e6,
    }


# Idle connections


def compare_idle(machine, options):
    print_title(f"idle: {options.idle} keep-alive connections, a request each, then silence")
    rows = [["proxy", "still open", "MiB", "KiB/connection"]]
    sound = True
    origin = machine.start_origin()
    for name in options.proxies:
        proxy = machine.start_proxy(name, origin)
        for _ in range(8):
            keep_alive_connection(proxy).close()
        resident = proxy.resident_bytes()
        connections = [keep_alive_connection(proxy) for _ in range(options.idle)]
        time.sleep(2)
        resident = proxy.resident_bytes() - resident
        alive = sum(still_open(connection) for connection in connections)
        for connection in connections:
            connection.close()
        machine.stop(proxy)
        sound &= alive == options.idle
        rows.append([name, str(alive), f"{resident / 2**20:.1f}", f"{resident / 1024 / options.idle:.1f}"])
    machine.stop_all()
    print_table(rows)
    return sound


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


# Figures


def median(results, key):
    return statistics.median(result[key] for result in results)


def percentile(values, rank):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * rank // 100)] if ordered else float("nan")


def ratio(cpu, name):
    return f"{cpu[name] / cpu['nginx']:.2f}" if "nginx" in cpu else "-"


def print_title(title):
    print(f"\n{title}", flush=True)


def print_table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *rest = [cell.rjust(width) for cell, width in zip(row, widths)]
        print("  " + "  ".join([row[0].ljust(widths[0]), *rest]), flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"compare: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
