#!/usr/bin/env python3
"""What stored compression costs and gains beside nginx's gzip at level 6, which pays for each response.

A corpus of JSON, HTML, JavaScript, CSS and SVG, 1 to 500 KiB each, is asked for through both: bytes in all, and CPU for so many hits of
each, all compression included. Then the CPU of a compressed hit is set beside that of an identity hit of as many bytes, in
turns, and JSON in 50 ms pieces is listened to. Proxies have one core, the load and the origin the other. What is stored is
compressed as well as it can be by a thread that gets only what nobody else wants, and every figure is one of CPU
or of single milliseconds, so the machine has to be idle otherwise; what others have used of it meanwhile is said at the end.
Needs Linux, two cores, nginx, wrk, and a release build (another binary: FOREBAY=path); takes some three minutes. The exit
status is 1 if something failed, which a wrong body is; a target that is missed is said, and no failure: machines differ.
"""

import argparse
import contextlib
import http.server
import json
import os
import random
import resource
import socket
import socketserver
import statistics
import sys
import threading
import time
import urllib.request
import zlib
from pathlib import Path

from load import wrk
from processes import Failure, forebay_binary, free_port, whole_machine
from proxies import doors, nginx, version

WORDS = "the order of a page is made from what people read in it while other parts wait for their turn to be shown".split()
SIZES = [1, 5, 20, 100, 500]
PIECES = 40
PIECE_SECONDS = 0.05
STREAMS = 3
# At least so many hundredths smaller than gzip's.
LEAST_SMALLER = 15
# CPU of a compressed hit, by that of an identity hit of the same size.
MOST_CPU = 1.1
# What a piece of a stream may wait, in milliseconds.
MOST_WAIT = 25
# Without a better form for so long there will be none.
PATIENCE_SECONDS = 45
# Of both cores, used by others: beyond it no figure can be trusted.
MOST_OTHERS = 0.05


def corpus():
    rng = random.Random(7)

    def text(count):
        return " ".join(rng.choice(WORDS) for _ in range(count))

    def fill(make, size):
        parts = []
        length = 0
        while length < size * 1024:
            parts.append(make(len(parts)))
            length += len(parts[-1]) + 1
        return "\n".join(parts).encode()

    kinds = {
        "json": ("application/json", lambda n: json.dumps({"id": n, "price": rng.randrange(10**6) / 100, "name": text(3), "about": text(20)})),
        "html": ("text/html", lambda n: f'<article class="card" id="a{n}"><h2>{text(4)}</h2><p>{text(30)}</p></article>'),
        "js": ("application/javascript", lambda n: f"export function f{rng.randrange(10**6)}(a, b) {{ return a.{rng.choice(WORDS)} + b[{n}] * {rng.random():.4f}; }}"),
        "css": ("text/css", lambda n: f".{rng.choice(WORDS)}-{n} {{ margin: {rng.randrange(40)}px; color: #{rng.randrange(1 << 24):06x}; display: flex }}"),
        "svg": ("image/svg+xml", lambda n: f'<path d="M{rng.random() * 900:.1f} {rng.random() * 900:.1f}L{rng.random() * 900:.1f} {rng.random() * 900:.1f}" stroke="#{rng.randrange(4096):03x}"/>'),
    }
    return {f"/{kind}-{size}": (media, fill(make, size)) for kind, (media, make) in kinds.items() for size in SIZES}


def start_origin(objects):
    """Serves them from threads of this process; /stream is JSON in pieces, each with the time at which it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Or the first piece waits for the acknowledgement of the head.
        disable_nagle_algorithm = True

        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path == "/stream":
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for number in range(PIECES):
                    piece = (json.dumps({"number": number, "sent": time.monotonic()}) + "\n").encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    time.sleep(PIECE_SECONDS)
                self.wfile.write(b"0\r\n\r\n")
                return
            media, body = objects[self.path]
            self.send_response(200)
            for name, value in [("Content-Type", media), ("Content-Length", len(body)), ("Cache-Control", "max-age=3600"), ("ETag", '"v1"')]:
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def start_forebay(machine, origin):
    ports = doors("http")
    metrics = free_port()
    file = machine.scratch / "forebay.yaml"
    file.write_text(
        f"listen: 127.0.0.1:{ports['http']}\nupstream: http://127.0.0.1:{origin}\nmetrics: {{ listen: 127.0.0.1:{metrics} }}\n"
        "log: { access: off, level: warn }\nserver: { threads: 1 }\ndefaults: { compression: { codings: [br, gzip] } }\n"
    )
    server = machine.start("forebay", ports, machine.proxy_core, [forebay_binary(), "run", "--config", file])
    return server, metrics


def start_nginx(machine, origin):
    return nginx(machine, "nginx", machine.proxy_core, doors("http"), f"""
    access_log off;
    gzip on;
    gzip_comp_level 6;
    gzip_min_length 1000;
    gzip_proxied any;
    gzip_types application/json application/javascript text/css image/svg+xml;
    proxy_cache_path {machine.scratch}/cache keys_zone=z:10m;
    server {{
        LISTEN
        location / {{ proxy_cache z; proxy_set_header Accept-Encoding ''; proxy_pass http://127.0.0.1:{origin}; }}
    }}
    """)


class Client:
    """One connection, and as little as possible between it and the figures."""

    def __init__(self, port):
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.stream.makefile("rb", 1 << 16)

    def get(self, path, coding):
        """The fields, by name in lower case, and the body, as coded."""
        accepts = f"Accept-Encoding: {coding}\r\n" if coding else ""
        self.stream.sendall(f"GET {path} HTTP/1.1\r\nHost: bench.example\r\n{accepts}\r\n".encode())
        fields = self.head()
        if "content-length" in fields:
            return fields, self.reader.read(int(fields["content-length"]))
        return fields, b"".join(self.chunks())

    def head(self):
        status = self.reader.readline()
        if b" 200 " not in status:
            raise Failure(f"not answered: {status}")
        fields = {}
        while (line := self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            fields[name.lower()] = value.strip()
        return fields

    def chunks(self):
        while length := int(self.reader.readline(), 16):
            yield self.reader.read(length)
            self.reader.readline()
        self.reader.readline()


def made_best(metrics):
    """How many forms have been made as well as they can be."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("forebay_compressions_total") and 'result="best"' in line)


def until_best(client, objects, metrics):
    """Asks until the best form of everything has been made."""
    made, progress = 0, time.monotonic()
    while made < len(objects):
        for path in objects:
            client.get(path, "br")
        now_made = made_best(metrics)
        if now_made > made:
            made, progress = now_made, time.monotonic()
        if time.monotonic() > progress + PATIENCE_SECONDS:
            raise Failure(f"only {made:.0f} of {len(objects)} best forms have been made: the machine has no time to spare")
        time.sleep(0.25)


def through(server, objects, coding, hits, metrics=None):
    """Bytes of all objects in that coding, and CPU seconds for so many hits of each, all that comes before them included."""
    client, total = Client(server.port), 0
    began = server.cpu_seconds()
    for path in objects:
        client.get(path, coding)
    if metrics is not None:
        until_best(client, objects, metrics)
    for path, (_, body) in objects.items():
        for _ in range(hits):
            fields, coded = client.get(path, coding)
        # What is below the least length goes as it is.
        if fields.get("content-encoding") not in (coding, None):
            raise Failure(f"{server.name}: {path} came as {fields.get('content-encoding')}")
        if fields.get("content-encoding") == "gzip" and zlib.decompress(coded, 31) != body:
            raise Failure(f"{server.name}: {path} came as something else")
        total += len(coded)
    return total, server.cpu_seconds() - began


def hit_costs(machine, server, objects, rounds, seconds):
    """CPU of a compressed hit by that of an identity hit of as many bytes, a figure for each round."""
    path = "/html-100"
    length = len(Client(server.port).get(path, "br")[1])
    objects["/same"] = ("application/octet-stream", random.Random(1).randbytes(length))
    fields = ["Accept-Encoding: br"]
    ratios, costs = [], []
    for turn in range(rounds + 1):
        # Whichever comes first has no advantage.
        order = [path, "/same"] if turn % 2 else ["/same", path]
        cost = {}
        for each in order:
            load = wrk(machine, server, each, seconds=seconds, connections=16, fields=fields)
            if load.errors:
                raise Failure(f"{load.errors} requests for {each} failed")
            cost[each] = load.cpu_us
        # The first round is to warm up.
        if turn:
            ratios.append(cost[path] / cost["/same"])
            costs.append(cost["/same"])
    return length, ratios, statistics.median(costs)


def waits(port, coding):
    """What each piece of the stream has waited from the origin's write until it could be read, in milliseconds."""
    client = Client(port)
    accepts = f"Accept-Encoding: {coding}\r\n" if coding else ""
    client.stream.sendall(f"GET /stream HTTP/1.1\r\nHost: bench.example\r\n{accepts}\r\n".encode())
    fields = client.head()
    if fields.get("content-encoding") != coding:
        raise Failure(f"the stream came as {fields.get('content-encoding')}")
    decoder = zlib.decompressobj(31) if coding else None
    text, found = b"", []
    for chunk in client.chunks():
        text += decoder.decompress(chunk) if decoder else chunk
        *lines, text = text.split(b"\n")
        found += [1000 * (time.monotonic() - json.loads(line)["sent"]) for line in lines]
    if len(found) != PIECES:
        raise Failure(f"{len(found)} of {PIECES} pieces have come")
    return found


def busy_seconds(cores):
    """User, system and stolen time of these cores."""
    names = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *times = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(int, times[:8])
            ticks += user + nice + system + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def own_seconds():
    """CPU of this process and of all that it has started and waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@contextlib.contextmanager
def watched_machine():
    """As whole_machine; says at the end what others have used of it."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    began, busy, own = time.monotonic(), busy_seconds(cores), own_seconds()
    with whole_machine("compression", "one for the proxies, one for the origin and the load") as machine:
        yield machine
    seconds = time.monotonic() - began
    others = max(0.0, busy_seconds(cores) - busy - (own_seconds() - own)) / seconds / len(cores)
    judgement = "quiet enough" if others <= MOST_OTHERS else "BUSY: none of these figures can be trusted"
    print(f"\n{seconds:.0f} s; others used {100 * others:.1f} % of both cores (at most {100 * MOST_OTHERS:.0f} %): {judgement}")


def target(what, measured, least_or_most, is_met):
    print(f"  target: {what}: {measured} ({least_or_most}): {'met' if is_met else 'MISSED'}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hits", type=int, default=1000, help="hits of each object (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of compressed beside identity hits (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="length of half a round (default %(default)s)")
    options = parser.parse_args()
    if min(options.hits, options.rounds, options.seconds) < 1:
        parser.error("hits, rounds and seconds must be at least 1")
    objects = corpus()
    with watched_machine() as machine:
        origin = start_origin(objects)
        forebay, metrics = start_forebay(machine, origin)
        rival = start_nginx(machine, origin)
        print(f"{len(objects)} objects, {sum(len(body) for _, body in objects.values())} bytes; {options.hits} hits of each", flush=True)
        stored, cpu = through(forebay, objects, "br", options.hits, metrics)
        print(f"  Forebay: {stored} bytes in br, {cpu:.2f} s CPU", flush=True)
        live, rival_cpu = through(rival, objects, "gzip", options.hits)
        print(f"  {version('nginx')}: {live} bytes in gzip, {rival_cpu:.2f} s CPU")
        machine.stop(rival)
        smaller = 100 - 100 * stored / live
        target("smaller than nginx's gzip 6", f"{smaller:.1f} %", f"at least {LEAST_SMALLER} %", smaller >= LEAST_SMALLER)
        target("CPU by nginx's", f"{cpu / rival_cpu:.3f}", "below 1", cpu < rival_cpu)

        length, ratios, cost = hit_costs(machine, forebay, objects, options.rounds, options.seconds)
        ratio = statistics.median(ratios)
        print(f"\nA compressed hit beside an identity hit of the same {length} bytes ({cost:.1f} µs CPU), in {options.rounds} rounds")
        print(f"  {' '.join(f'{each:.3f}' for each in sorted(ratios))}")
        target("CPU of a compressed hit by an identity hit's, median", f"{ratio:.3f}", f"at most {MOST_CPU}", ratio <= MOST_CPU)

        print(f"\nStreaming JSON, {STREAMS} times {PIECES} pieces, one each {1000 * PIECE_SECONDS:.0f} ms: what a piece waits")
        worst = 0.0
        for coding in [None, "gzip"]:
            found = [wait for _ in range(STREAMS) for wait in waits(forebay.port, coding)]
            print(f"  {coding or 'identity':8}: median {statistics.median(found):.1f} ms, at most {max(found):.1f} ms", flush=True)
            worst = max(worst, max(found)) if coding else worst
        target("longest wait of any piece", f"{worst:.1f} ms", f"below {MOST_WAIT} ms", worst < MOST_WAIT)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(f"compression: {failure}", file=sys.stderr)
        sys.exit(1)
