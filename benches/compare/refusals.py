"""Refusals of a rate limit beside hits: whoever sends too much must not cost more than who is served."""

import http.client

from load import wrk
from proxies import Setup, start_origin
from report import median

PATHS = {"hit 1 KiB": "/hit/1k", "refusal": "/few/1k"}


def compare(machine, options, report):
    if options.forebay is None:
        return
    proxy = Setup(machine, options.forebay).start("forebay", start_origin(machine))
    verify(proxy)
    rounds = {kind: [] for kind in PATHS}
    for number in range(max(2, 2 * options.rounds)):
        for kind in PATHS if number % 2 == 0 else reversed(PATHS):
            rounds[kind].append(wrk(machine, proxy, PATHS[kind], seconds=options.seconds))
    machine.stop_all()
    report.title("Refusals of a rate limit beside hits")
    cpu = {kind: median(loads, lambda load: load.cpu_us) for kind, loads in rounds.items()}
    rows = [["", "req/s", "CPU µs/req", "p99 ms"]]
    for kind, loads in rounds.items():
        figures = (median(loads, lambda load: load.rate), cpu[kind], median(loads, lambda load: load.p99_ms))
        rows.append([kind, *("{:.0f} {:.2f} {:.2f}".format(*figures).split())])
    report.table(rows)
    for load in rounds["refusal"]:
        # wrk counts a 429 as an error: all of them have to be.
        if load.errors != load.requests:
            report.wrong(f"{load.requests - load.errors} of {load.requests} requests were not refused")
    report.expect("refusal: CPU, of a hit of 1 KiB", cpu["refusal"] / cpu["hit 1 KiB"], 1.0)


def verify(proxy):
    """The second request is refused, and the first hit is stored."""
    statuses = []
    for path in [*PATHS.values(), *PATHS.values()]:
        client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        client.request("GET", path)
        statuses.append(client.getresponse().status)
        client.close()
    if statuses != [200, 200, 200, 429]:
        raise proxy.complaint(f"statuses {statuses}")
