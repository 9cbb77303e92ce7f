"""A cache that grows: what a stored response takes in memory, whether a hit gets dearer, and what happens when not everything
fits."""

import http.client
import random
import time

from load import fill, many, once, wrk
from proxies import MIB, Setup, made_by_origin, start_origin
from report import median

# Room for a million responses of 1 KiB with all that they take.
ROOMY = 4095 * MIB
# Room for a quarter of the working set: about 1.6 KiB for each response.
TIGHT = 32 * MIB
WORKING_SET = 4 * TIGHT // 1600
# Different requests in a row before they repeat.
DRAWN = 200_000
# How much dearer a hit may get while stored responses grow a thousandfold.
FLAT = 1.20
# Asks at random, in the order of a fixed seed.
SEED = 1


def compare_growth(machine, options, report):
    """Memory of each stored response and CPU of a hit on random ones of them, from 1,000 to a million."""
    setup = Setup(machine, options.forebay, cache=ROOMY)
    origin = start_origin(machine)
    proxy = setup.start("forebay", origin)
    empty = proxy.resident_bytes()
    steps = [10**power for power in range(3, 7) if 10**power <= options.stored]
    rows = [["stored responses of 1 KiB", "hit: CPU µs/req", "of the first", "MiB", "bytes each, body and all", "to store one: CPU µs"]]
    costs = []
    for step in steps:
        before = made_by_origin(machine)
        cpu = fill(machine, proxy, step, lambda: made_by_origin(machine))
        new = made_by_origin(machine) - before
        resident = proxy.resident_bytes() - empty
        script = many(machine, random.Random(SEED).choices(range(1, step + 1), k=min(DRAWN, 4 * step)))
        made = made_by_origin(machine)
        loads = [wrk(machine, proxy, seconds=options.seconds, script=script) for _ in range(options.rounds)]
        missed = made_by_origin(machine) - made
        if missed or any(load.errors for load in loads):
            report.wrong(f"{step} stored: {missed} were not there any more")
        costs.append(median(loads, lambda load: load.cpu_us))
        rows.append([
            f"{step:,}",
            f"{costs[-1]:.2f}",
            f"{costs[-1] / costs[0]:.2f}",
            f"{resident / MIB:.0f}",
            f"{resident / step:.0f}" if step >= 10_000 else "-",
            # What was stored already was a hit.
            f"{(cpu * 1e6 - (step - new) * costs[-1]) / new:.1f}" if step >= 10_000 else "-",
        ])
    head = head_length(proxy)
    machine.stop_all()
    report.title("Stored responses grow")
    report.note(f"Forebay alone; the requests are for random ones of them. Status line and fields as sent take {head} bytes.")
    report.table(rows)
    report.expect(f"hit with {steps[-1]:,} stored: CPU, of that with {steps[0]:,}", costs[-1] / costs[0], FLAT)


def head_length(proxy):
    client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    client.request("GET", "/many/1")
    response = client.getresponse()
    response.read()
    client.close()
    return len("HTTP/1.1 200 OK\r\n\r\n") + sum(len(name) + len(value) + 4 for name, value in response.getheaders())


def compare_zipf(machine, options, report):
    """A working set of four times the cache, asked for by Zipf's law: how many hits, and what a request costs."""
    report.title("Working set of four times the cache")
    report.note(
        f"{WORKING_SET:,} responses of 1 KiB, by Zipf's law with exponent 0.9, after as many requests to fill"
        f" {TIGHT // MIB} MiB of cache. nginx keeps it in"
        " files and enforces the size behind its back, so its figures are not comparable; Varnish and HAProxy count other things."
    )
    count = DRAWN // 4 if options.quick else 2 * DRAWN
    ids = zipf(WORKING_SET, 0.9, 2 * count)
    rows = [["proxy", "hit ratio", "seconds", "req/s", "CPU µs/req", "MiB"]]
    for name in ["haproxy", "varnish", "forebay"]:
        if name not in options.proxies:
            continue
        origin = start_origin(machine)
        proxy = Setup(machine, options.forebay, cache=TIGHT).start(name, origin)
        empty = proxy.resident_bytes()
        # Until it is full, and its order of eviction has seen what is asked for often.
        once(machine, proxy, ids[:count])
        time.sleep(0.2)
        made = made_by_origin(machine)
        seconds, cpu = once(machine, proxy, ids[count:])
        time.sleep(0.2)
        made = made_by_origin(machine) - made
        rows.append([
            name,
            f"{1 - made / count:.1%}",
            f"{seconds:.1f}",
            f"{count / seconds:.0f}",
            f"{cpu / count * 1e6:.1f}",
            f"{(proxy.resident_bytes() - empty) / MIB:.0f}",
        ])
        machine.stop_all()
    report.table(rows)


def zipf(population, exponent, count):
    """Ranks from 1, the first the most frequent."""
    weights, total = [], 0.0
    for rank in range(1, population + 1):
        total += rank**-exponent
        weights.append(total)
    return random.Random(SEED).choices(range(1, population + 1), cum_weights=weights, k=count)
