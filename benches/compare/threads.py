"""Two threads that take work from each other, beside two runtimes that share nothing: what the sharing costs, and what one
runtime for each core, each with a listening socket of its own (SO_REUSEPORT), could save at most."""

import os
import threading

from load import wrk
from proxies import Setup, start_origin
from report import median


def compare(machine, options, report):
    if options.forebay is None:
        return
    origin = start_origin(machine)
    cores = [machine.proxy_core, machine.load_core]
    both = ",".join(map(str, cores))
    shapes = {
        "one process, two threads, work stealing": [Setup(machine, options.forebay, threads=2, cores=both)] * 2,
        "two processes of one thread, a core each": [Setup(machine, options.forebay, cores=str(core)) for core in cores],
    }
    running = {}
    for shape, setups in shapes.items():
        started = {id(setup): setup.start("forebay", origin) for setup in setups}
        # As many loads as cores, each to its process or both to the same.
        running[shape] = [started[id(setup)] for setup in setups]
    rounds = {shape: [] for shape in shapes}
    for number in range(max(2, 2 * options.rounds)):
        order = list(running) if number % 2 == 0 else list(running)[::-1]
        for shape in order:
            rounds[shape].append(under_load(machine, options, running[shape], cores))
    machine.stop_all()
    report.title("Threads: hits of 1 KiB, proxy and load together on two cores")
    rows = [["", "req/s", "CPU µs/req", "p99 ms"]]
    for shape, found in rounds.items():
        rate, cpu, p99 = (median(found, lambda figures, at=at: figures[at]) for at in range(3))
        rows.append([shape, f"{rate:.0f}", f"{cpu:.2f}", f"{p99:.2f}"])
    report.table(rows)


def under_load(machine, options, proxies, cores):
    """Requests a second, CPU for each, and the worse p99."""
    loads = []

    def load(proxy):
        os.sched_setaffinity(0, set(cores))
        loads.append(wrk(machine, proxy, "/hit/1k", seconds=options.seconds))

    distinct = {proxy.process.pid: proxy for proxy in proxies}.values()
    before = sum(proxy.cpu_seconds() for proxy in distinct)
    running = [threading.Thread(target=load, args=[proxy]) for proxy in proxies]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    cpu = sum(proxy.cpu_seconds() for proxy in distinct) - before
    requests = sum(load.requests for load in loads)
    return sum(load.rate for load in loads), cpu / requests * 1e6, max(load.p99_ms for load in loads)
