#!/usr/bin/env python3
"""A load that shows a compiler which code is the usual one (see benches/guided.sh): hits, conditionals, passes, misses, refusals,
uploads and event streams, over HTTP/1.1, HTTP/2 and TLS, from programs and from browsers."""

import http.client
import sys

from clients import APP, OWN, READS, THINK_MS
from events import Streams
from growth import SEED, zipf
from kinds import KINDS, verify
from load import fill, h2load, many, wrk
from processes import Failure, forebay_binary, whole_machine
from proxies import Setup, made_by_origin, start_origin

SECONDS = 1
STREAMS = 50
STORED = 20_000
USERS = 200
BROWSER = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: http://bench.example/overview?page=2",
    "Cookie: session=Zm9yZWJheQ0123456789abcdef; theme=dark",
    "Sec-Fetch-Dest: empty",
    "Sec-Fetch-Mode: cors",
    "Sec-Fetch-Site: same-origin",
]


def main():
    with whole_machine("train", "one for Forebay, one for origin and load") as machine:
        origin, events = start_origin(machine), machine.start_event_origin()
        proxy = Setup(machine, forebay_binary(), events=events).start("forebay", origin)
        streams = Streams()
        streams.open(proxy.port, STREAMS)
        with streams.in_background():
            requests(machine, proxy)
        streams.close_all()
        machine.stop(proxy)


def requests(machine, proxy):
    for path, door, conditional in KINDS.values():
        fields = verify(proxy, path, door, conditional)
        if door == "h2":
            h2load(machine, proxy, path, seconds=SECONDS)
        else:
            for more in ([], BROWSER):
                wrk(machine, proxy, path, seconds=SECONDS, door=door, fields=fields + more)
    fill(machine, proxy, STORED, lambda: made_by_origin(machine))
    ids = zipf(STORED, 1.0, 10 * STORED)
    wrk(machine, proxy, seconds=SECONDS, script=many(machine, ids))
    # One more than the limit allows.
    client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    client.request("GET", "/few/1k")
    client.getresponse().read()
    client.close()
    wrk(machine, proxy, "/few/1k", seconds=SECONDS)
    file = machine.scratch / "train-ids.txt"
    file.write_text("\n".join(map(str, ids)))
    script = APP % {"seed": SEED, "ids": file, "reads": READS, "own": READS + OWN, "think": THINK_MS}
    wrk(machine, proxy, seconds=3 * SECONDS, connections=USERS, script=script)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(f"train: {failure}", file=sys.stderr)
        sys.exit(1)
