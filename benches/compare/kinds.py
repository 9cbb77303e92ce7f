"""Requests of one kind each: hits of several sizes, 304, passes, over HTTP/1.1, HTTP/2 and TLS."""

import http.client
import ssl

from load import h2load, wrk
from proxies import SIZES, Setup, start_floor, start_origin
from report import median

# What is measured: path, door, and whether the client has the response already.
KINDS = {
    "hit 1 KiB": ("/hit/1k", "http", False),
    "hit 20 KiB": ("/hit/20k", "http", False),
    "hit 64 KiB": ("/hit/64k", "http", False),
    "304": ("/hit/1k", "http", True),
    "pass 1 KiB": ("/pass/1k", "http", False),
    "pass 1 KiB, head and body in one write": ("/whole/1k", "http", False),
    "hit 1 KiB, HTTP/2": ("/hit/1k", "h2", False),
    "hit 1 KiB, TLS": ("/hit/1k", "tls", False),
}
# Kind, what Forebay's CPU is held against, and the share of it that is allowed.
TARGETS = [
    ("hit 1 KiB", ["nginx", "haproxy"], 0.70),
    ("hit 64 KiB", ["nginx", "haproxy", "varnish"], 0.70),
    ("304", ["nginx"], 0.70),
    ("pass 1 KiB", ["nginx"], 1.00),
    ("pass 1 KiB, head and body in one write", ["nginx"], 1.00),
]
# A hit of 1 KiB costs at most this share of what a loop does that only reads and writes.
OF_FLOOR = 1.30
# Switching the access log on costs a hit at most this share.
LOG_COST = 1.15


def compare(machine, options, report):
    origin = start_origin(machine)
    setup = Setup(machine, options.forebay)
    proxies = {name: setup.start(name, origin) for name in options.proxies}
    logged = {f"{name}+log": setup.start(f"{name}+log", origin) for name in proxies if name in ("nginx", "forebay")}
    floor = {"floor": start_floor(machine)}
    cpu = {}
    for kind in KINDS:
        path, door, conditional = KINDS[kind]
        taking_part = {name: proxy for name, proxy in proxies.items() if door in proxy.ports}
        if path.startswith("/hit/") and door == "http" and not conditional:
            taking_part |= floor
        if kind == "hit 1 KiB":
            taking_part |= logged
        cpu[kind] = measure(machine, options, report, kind, taking_part)
    machine.stop_all()
    held_against(cpu, report)


def held_against(cpu, report):
    for kind, found in cpu.items():
        if "floor" in found and "forebay" in found:
            own = found["forebay"] - found["floor"]
            best = min((found[name] for name in ("nginx", "haproxy") if name in found), default=float("nan"))
            report.note(
                f"{kind}: {found['floor']:.1f} µs are the kernel's, for one read and one write, whoever answers (`floor`, a loop"
                f" that does nothing else); {own:.1f} µs are Forebay's. The floor itself is {found['floor'] / best:.2f} of the"
                " better of nginx and HAProxy."
            )
    for kind, rivals, share in TARGETS:
        found = cpu.get(kind, {})
        best = min((found[name] for name in rivals if name in found), default=None)
        if best and "forebay" in found:
            report.expect(f"{kind}: CPU, of the best of {', '.join(rivals)}", found["forebay"] / best, share)
    hits = cpu.get("hit 1 KiB", {})
    if "forebay" in hits and "floor" in hits:
        report.expect("hit 1 KiB: CPU, of a loop that only reads and writes", hits["forebay"] / hits["floor"], OF_FLOOR)
    if "forebay" in hits and "forebay+log" in hits:
        report.expect("hit 1 KiB: CPU with the access log, of that without", hits["forebay+log"] / hits["forebay"], LOG_COST)


def measure(machine, options, report, kind, proxies):
    path, door, conditional = KINDS[kind]
    fields = {name: verify(proxy, path, door, conditional) for name, proxy in proxies.items()}

    def load(name, seconds):
        if door == "h2":
            return h2load(machine, proxies[name], path, seconds=seconds)
        return wrk(machine, proxies[name], path, seconds=seconds, door=door, fields=fields[name])

    if not options.quick:
        for name in proxies:
            load(name, 1)
    rounds = {name: [] for name in proxies}
    for number in range(options.rounds):
        # In alternating order, so that what else the machine does meets all of them.
        for name in proxies if number % 2 == 0 else reversed(proxies):
            rounds[name].append(load(name, options.seconds))

    report.title(kind)
    cpu = {name: median(loads, lambda load: load.cpu_us) for name, loads in rounds.items()}
    rows = [["proxy", "req/s", "CPU µs/req", "of nginx", "p50 ms", "p99 ms", "errors", "core busy"]]
    for name, loads in rounds.items():
        rows.append([
            name,
            f"{median(loads, lambda load: load.rate):.0f}",
            f"{cpu[name]:.1f}",
            f"{cpu[name] / cpu['nginx']:.2f}" if "nginx" in cpu else "-",
            f"{median(loads, lambda load: load.p50_ms):.2f}",
            f"{median(loads, lambda load: load.p99_ms):.2f}",
            str(sum(load.errors for load in loads)),
            f"{median(loads, lambda load: load.busy):.0%}",
        ])
        if name.startswith("forebay") and any(load.errors for load in loads):
            report.wrong(f"{name}: errors")
    report.table(rows)
    if kind == "hit 1 KiB" and {"nginx", "forebay"} <= rounds.keys():
        p99 = {name: median(loads, lambda load: load.p99_ms) for name, loads in rounds.items()}
        report.expect("hit 1 KiB: p99, of nginx", p99["forebay"] / p99["nginx"], 1.0)
    return cpu


def verify(proxy, path, door, conditional):
    """The right answer, and from the cache where that is what is measured. Answers the fields to send."""
    if door == "h2":
        # The same stored response as over HTTP/1.1.
        door = "http"
    client = connect(proxy, door)
    fields = {}
    expected = (200, SIZES[path.rpartition("/")[2]])
    try:
        # A miss, a hit, and what will be asked for.
        for attempt in range(3):
            client.request("GET", path, headers=fields)
            response = client.getresponse()
            found = (response.status, len(response.read()))
            if found != expected:
                raise proxy.complaint(f"{path}: status and length are {found} instead of {expected}")
            if conditional and attempt == 1:
                fields = {"If-Modified-Since": response.getheader("Last-Modified", "")}
                expected = (304, 0)
    except (OSError, http.client.HTTPException) as error:
        raise proxy.complaint(f"{path}: {error!r}") from error
    finally:
        client.close()
    status = response.getheader("Cache-Status", "")
    if ("hit" in status.lower()) != path.startswith("/hit/"):
        raise proxy.complaint(f"{path}: third answer has Cache-Status {status!r}")
    return [f"{name}: {value}" for name, value in fields.items()]


def connect(proxy, door):
    if door == "tls":
        trusting = ssl._create_unverified_context()
        return http.client.HTTPSConnection("127.0.0.1", proxy.ports["tls"], timeout=10, context=trusting)
    return http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
