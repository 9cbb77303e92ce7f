#!/usr/bin/env python3
"""Stored Brotli beside nginx's gzip at level 6, which pays for each response: sizes of a corpus, CPU for so many hits of each object, CPU of a
compressed hit beside an identity hit of the same transfer size, and what streaming JSON in 50 ms pieces waits.

    python3 benches/compare/compression.py [--forebay target/release/forebay] [--hits 1000]

What is stored is compressed as well as it can be by a thread that gets only what nobody else wants: the machine has to be idle otherwise.
"""

import argparse
import http.client
import http.server
import json
import os
import pathlib
import random
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
import urllib.request
import zlib

WORDS = "the order of a page is made from what people read in it while other parts wait for their turn to be shown".split()
SIZES = [1, 5, 20, 100, 500]
PIECES = 40


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


def origin(objects):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path == "/stream":
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for number in range(PIECES):
                    piece = (json.dumps({"number": number, "sent": time.time()}) + "\n").encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    time.sleep(0.05)
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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu(pid):
    """Seconds of a process and its children."""
    pids = [pid] + [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    ticks = 0
    for each in pids:
        fields = pathlib.Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Client:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port)

    def get(self, path, coding):
        self.connection.request("GET", path, headers={"Accept-Encoding": coding} if coding else {})
        response = self.connection.getresponse()
        return response.read(), response.getheader("Content-Encoding")


def wait_for(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


def start_forebay(binary, directory, upstream, more=""):
    port, metrics = free_port(), free_port()
    file = directory / f"forebay-{port}.yaml"
    file.write_text(
        f"listen: 127.0.0.1:{port}\nupstream: http://127.0.0.1:{upstream}\nmetrics: {{ listen: 127.0.0.1:{metrics} }}\n"
        f"log: {{ access: off, level: warn }}\nserver: {{ threads: 1 }}\n{more}"
    )
    process = subprocess.Popen([binary, "run", "--config", str(file)])
    wait_for(port)
    return process, port, metrics


def start_nginx(directory, upstream):
    port = free_port()
    file = directory / "nginx.conf"
    file.write_text(
        f"{'user root; ' if os.getuid() == 0 else ''}daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;\n"
        "events {}\nhttp { access_log off; keepalive_requests 1000000; gzip on; gzip_comp_level 6; gzip_min_length 1000; gzip_proxied any;\n"
        "gzip_types application/json application/javascript text/css image/svg+xml;\n"
        f"proxy_cache_path {directory}/cache keys_zone=z:10m;\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_cache z; proxy_set_header Accept-Encoding ''; proxy_pass http://127.0.0.1:{upstream}; }} }} }}\n"
    )
    process = subprocess.Popen(["nginx", "-p", str(directory), "-c", str(file)])
    wait_for(port)
    return process, port


def made_best(metrics):
    """How many forms have been made as well as they can be."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("forebay_compressions_total") and 'result="best"' in line)


def until_best(client, path, coding, metrics, patience):
    """Asks until the best form has been made, and is what is sent."""
    before, end = made_best(metrics), time.time() + patience
    while made_best(metrics) == before and time.time() < end:
        client.get(path, coding)
        time.sleep(0.02)
    return len(client.get(path, coding)[0])


def streaming(port):
    waits = []
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(b"GET /stream HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        reader = stream.makefile("rb")
        while reader.readline() not in (b"\r\n", b""):
            pass
        decoder, text = zlib.decompressobj(31), b""
        while length := int(reader.readline(), 16):
            text += decoder.decompress(reader.read(length))
            reader.readline()
            while b"\n" in text:
                line, text = text.split(b"\n", 1)
                waits.append(time.time() - json.loads(line)["sent"])
    return max(waits), sorted(waits)[len(waits) // 2]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--forebay", default="target/release/forebay")
    arguments.add_argument("--hits", type=int, default=1000)
    arguments.add_argument("--patience", type=float, default=60)
    options = arguments.parse_args()
    objects = corpus()
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        upstream = origin(objects)
        forebay, port, metrics = start_forebay(options.forebay, directory, upstream, "defaults: { compression: { codings: [br, gzip] } }\n")
        nginx, nginx_port = start_nginx(directory, upstream)
        try:
            results = {}
            for who, process, at, coding in [("forebay", forebay, port, "br"), ("nginx", nginx, nginx_port, "gzip")]:
                client, began, total = Client(at), cpu(process.pid), 0
                for path in objects:
                    client.get(path, coding)
                    length = until_best(client, path, coding, metrics, options.patience) if who == "forebay" else len(client.get(path, coding)[0])
                    for _ in range(options.hits):
                        client.get(path, coding)
                    total += length
                results[who] = (total, cpu(process.pid) - began)
                print(f"{who}: {total} bytes in {coding}, {results[who][1]:.2f} s CPU for {options.hits} hits of each of {len(objects)} objects")
            print(f"smaller by {100 - 100 * results['forebay'][0] / results['nginx'][0]:.1f} %, CPU {results['forebay'][1] / results['nginx'][1]:.2f} of nginx's")
            path = "/html-100"
            length = len(Client(port).get(path, "br")[0])
            objects["/same"] = ("application/octet-stream", os.urandom(length))
            client, costs = Client(port), {}
            for path, coding in [("/same", "br"), (path, "br")] * 6:
                client.get(path, coding)
                began = cpu(forebay.pid)
                for _ in range(5 * options.hits):
                    client.get(path, coding)
                costs[path] = costs.get(path, 0) + cpu(forebay.pid) - began
            print(f"a compressed hit costs {costs['/html-100'] / max(costs['/same'], 1e-9):.2f} of an identity hit of the same {length} bytes")
            longest, median = streaming(port)
            print(f"streaming JSON waits {1000 * median:.1f} ms, at most {1000 * longest:.1f} ms")
        finally:
            for process in (forebay, nginx):
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
