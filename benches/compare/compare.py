#!/usr/bin/env python3
"""Forebay beside nginx, HAProxy and Varnish, in one run: the same origin, the same load, one core each.

The proxy runs on one core, origin and load on another. Rounds alternate between the proxies, so that what else the
machine does meets all of them; the figures are medians over the rounds. CPU is user and system time of all processes
of the proxy. What is printed is also written to benches/results.md. Needs Linux, two cores and the tools that
`make bench` installs, which builds Forebay first (`make release`; another binary: FOREBAY=path). The exit status is 1 if anything failed: a
wrong answer, an error, a lost event. A target that is missed is said, and no failure: machines differ.
"""

import argparse
import os
import resource
import signal
import sys
import time
from pathlib import Path

import clients
import growth
import instructions
import kinds
import refusals
import shares
import streams
import threads
from processes import ROOT, Failure, forebay_binary, whole_machine
from proxies import version
from report import Report

RIVALS = ["nginx", "haproxy", "varnish"]
PARTS = {
    "requests": kinds.compare,
    "streams": streams.compare,
    "idle": clients.compare_idle,
    "connections": clients.compare_connections,
    "growth": growth.compare_growth,
    "zipf": growth.compare_zipf,
    "app": clients.compare_app,
    "threads": threads.compare,
    "instructions": instructions.compare,
    "refusals": refusals.compare,
    "shares": shares.compare,
}


def main():
    options = parse_arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # What is running has to be ended, also when this program is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    report = Report()
    started = time.monotonic()
    with whole_machine("compare", "one for the proxy, one for origin and load") as machine:
        tell_setting(options, machine, report)
        for part in options.only:
            PARTS[part](machine, options, report)
    report.summary()
    report.note(f"The run took {time.monotonic() - started:.0f} s.")
    options.results.write_text(report.markdown("What Forebay costs, beside others"))
    print(f"\nwritten to {options.results}")
    return 0 if report.sound else 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a run of two minutes: one short round of each")
    parser.add_argument("--seconds", type=positive, help="length of a round (default 3, quick 1)")
    parser.add_argument("--rounds", type=positive, help="rounds per proxy (default 3, quick 1)")
    parser.add_argument("--stored", type=positive, help="stored responses at most (default 1000000, quick 100000)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts (default: all)")
    proxies = [*RIVALS, "forebay"]
    parser.add_argument("--proxies", nargs="+", choices=proxies, default=proxies, help="who takes part (default: all)")
    parser.add_argument("--streams", type=positive, default=1000, help="concurrent streams (default %(default)s)")
    parser.add_argument("--idle", type=positive, default=1000, help="idle connections (default %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "benches" / "results.md", help="default %(default)s")
    options = parser.parse_args()
    options.seconds = options.seconds or (1 if options.quick else 3)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.stored = options.stored or (100_000 if options.quick else 1_000_000)
    options.stream_rounds = 1
    options.forebay = forebay_binary() if "forebay" in options.proxies else None
    return options


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def tell_setting(options, machine, report):
    models = (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    rivals = [version(name) for name in options.proxies if name in RIVALS]
    report.note(f"{next(models, 'unknown CPU')}, Linux {os.uname().release}; {', '.join(rivals)}.")
    report.note(
        f"Proxy on one core, origin and load on another; medians of {options.rounds} rounds of {options.seconds} s."
        f" Load average at start {os.getloadavg()[0]:.2f}: figures are good for something when it is near 0."
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"compare: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
