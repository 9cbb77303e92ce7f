"""Whose the CPU of a request is: the kernel's, Forebay's own code, that of the libraries it stands on. Sampled by perf."""

import re
import subprocess
import threading

from load import wrk
from processes import Failure, tool
from proxies import Setup, start_origin

PATHS = {"hit 1 KiB": "/hit/1k", "pass 1 KiB": "/pass/1k"}
SAMPLES_PER_SECOND = 2_000
# By the beginning of a symbol, the first that fits; what the compiler made of generic code bears the name of the standard library.
OWNERS = [
    ("kernel", r"\[k\]"),
    ("Forebay", r"<?(dyn )?forebay::|.*forebay::"),
    ("tokio", r".*(tokio|mio)::"),
    ("Pingora", r".*pingora"),
    ("memory", r"_rjem|.*(malloc|alloc::|free|memmove|memcpy|memset|bytes::)|do_rallocx"),
    ("clock", r".*clock_gettime|.*time::"),
]
REST = "libc, standard library, others"


def compare(machine, options, report):
    if options.forebay is None:
        return
    report.title("Whose the CPU of a request to Forebay is")
    try:
        tool("perf")
    except Failure:
        report.note("perf is missing: not sampled.")
        return
    columns = [name for name, _ in OWNERS] + [REST]
    rows = [["µs a request", *columns, "all"]]
    origin = start_origin(machine)
    proxy = Setup(machine, options.forebay).start("forebay", origin)
    for kind, path in PATHS.items():
        found = sampled(machine, options, proxy, path)
        if found is None:
            report.note("perf may not sample here.")
            break
        load, shares = found
        rows.append([kind, *(f"{shares.get(name, 0.0) * load.cpu_us:.2f}" for name in columns), f"{load.cpu_us:.2f}"])
    machine.stop_all()
    report.table(rows)


def sampled(machine, options, proxy, path):
    """A load, and each owner's share of its CPU. `None`: perf may not."""
    data = machine.scratch / "perf.data"
    loads = []
    thread = threading.Thread(
        target=lambda: loads.append(wrk(machine, proxy, path, seconds=options.seconds + 1)),
    )
    wrk(machine, proxy, path, seconds=1)
    thread.start()
    # Not the processor's own counter, which virtual machines do not have.
    record = [tool("perf"), "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_PER_SECOND), "-p", str(proxy.process.pid)]
    done = subprocess.run([*record, "-o", data, "--", "sleep", str(options.seconds)], capture_output=True, text=True)
    thread.join()
    if done.returncode != 0:
        return None
    report = [tool("perf"), "report", "-i", data, "--no-children", "-g", "none", "--sort", "symbol", "-t", "\t"]
    lines = subprocess.run(report, capture_output=True, text=True, check=True).stdout.splitlines()
    shares = {}
    for line in lines:
        if match := re.match(r"\s*([\d.]+)%\s*\t([^\t]*)", line):
            name = owner(match[2].strip())
            shares[name] = shares.get(name, 0.0) + float(match[1]) / 100
    return loads[0], shares


def owner(symbol):
    if symbol.startswith("[k]"):
        return "kernel"
    symbol = symbol.removeprefix("[.] ")
    return next((name for name, pattern in OWNERS if re.match(pattern, symbol)), REST)
