"""A thousand event streams: what they take, and what they are delayed by."""

from events import Streams
from proxies import Setup
from report import median

# Memory that a stream may take.
MAX_KIB = 24
STREAM_SECONDS = 4


def compare(machine, options, report):
    proxies = ["direct", *(name for name in options.proxies if name in ("nginx", "forebay"))]
    rounds = {name: [] for name in proxies}
    for number in range(options.stream_rounds):
        for name in proxies if number % 2 == 0 else reversed(proxies):
            rounds[name].append(run_streams(machine, options, name))

    report.title(f"streams: {options.streams} event streams opened at once, an event a second each")
    direct = rounds["direct"]
    cpu = {name: middle(r, "cpu_us") for name, r in rounds.items() if name != "direct"}
    delivery = [["proxy", "delay p50 ms", "p99 ms", "added p50 ms", "added p99 ms", "broken streams"]]
    cost = [["proxy", "first byte p50 ms", "p99 ms", "all opened in ms", "KiB/stream", "CPU µs/event", "of nginx"]]
    for name, results in rounds.items():
        proxied = name != "direct"
        p50, p99 = middle(results, "delay_p50"), middle(results, "delay_p99")
        delivery.append([
            name,
            f"{p50:.2f}",
            f"{p99:.2f}",
            f"{p50 - middle(direct, 'delay_p50'):.2f}" if proxied else "",
            f"{p99 - middle(direct, 'delay_p99'):.2f}" if proxied else "",
            str(sum(r["broken"] for r in results)),
        ])
        cost.append([
            name,
            f"{middle(results, 'first_p50'):.1f}",
            f"{middle(results, 'first_p99'):.1f}",
            f"{middle(results, 'opening_ms'):.0f}",
            f"{middle(results, 'kib'):.1f}" if proxied else "",
            f"{cpu[name]:.1f}" if proxied else "",
            f"{cpu[name] / cpu['nginx']:.2f}" if proxied and "nginx" in cpu else "",
        ])
    report.table(delivery)
    report.table(cost)
    if "forebay" in rounds:
        if broken := sum(r["broken"] for r in rounds["forebay"]):
            report.wrong(f"forebay: {broken} broken streams")
        report.expect("KiB a stream", middle(rounds["forebay"], "kib"), MAX_KIB)


def run_streams(machine, options, name):
    origin = machine.start_event_origin()
    proxy = origin if name == "direct" else Setup(machine, options.forebay, events=origin).start(name, origin)
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
        streams.receive(STREAM_SECONDS)
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


def middle(results, key):
    return median(results, lambda result: result[key])


def percentile(values, rank):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * rank // 100)] if ordered else float("nan")
