"""Event streams: an origin (run as a program: events.py PORT) and a client that measures what a proxy adds.

Both are one thread over epoll. Every event carries the time at which it was written, by the monotonic clock, which all
processes of a machine share.
"""

import contextlib
import errno
import heapq
import re
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field

INTERVAL = 1.0
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
REQUEST = b"GET /events HTTP/1.1\r\nHost: bench.example\r\nAccept: text/event-stream\r\n\r\n"
# The size of a token of a chat completion.
EVENT = '{"choices":[{"delta":{"content":"water"},"index":0}],"number":%d,"sent":%d}'
STAMP = re.compile(rb'data: [^\n]*"number":(\d+),"sent":(\d+)}\n\n')
# Streams start their events spread over the interval, whatever their number: multiples of this, modulo 1, are even.
GOLDEN = 0.6180339887498949
# A request head or an unfinished event that is longer is not one.
MAX_PENDING = 16 * 1024
# A stream whose first byte takes longer counts as broken.
OPEN_SECONDS = 30


def serve(port):
    """Answers every request with a stream of one event per interval, until the client leaves."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    reading, streams, due = {}, {}, []
    accepted = 0

    def drop(fd):
        poll.unregister(fd)
        (reading.pop(fd, None) or streams.pop(fd))[0].close()

    while True:
        timeout = max(0.0, due[0][0] - time.monotonic()) if due else None
        for fd, _ in poll.poll(timeout):
            if fd == listener.fileno():
                while True:
                    try:
                        connection, _ = listener.accept()
                    except BlockingIOError:
                        break
                    connection.setblocking(False)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    reading[connection.fileno()] = (connection, bytearray())
                    poll.register(connection, select.EPOLLIN)
                continue
            connection, received = reading.get(fd) or streams[fd]
            try:
                data = connection.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                drop(fd)
            elif fd in reading:
                received += data
                if b"\r\n\r\n" in received:
                    connection.send(HEAD)
                    streams[fd] = reading.pop(fd)
                    accepted += 1
                    first = time.monotonic() + INTERVAL * (accepted * GOLDEN % 1)
                    heapq.heappush(due, (first, accepted, fd, connection, 1))
                elif len(received) > MAX_PENDING:
                    drop(fd)
        while due and due[0][0] <= time.monotonic():
            at, order, fd, connection, number = heapq.heappop(due)
            # The descriptor may belong to a later connection by now.
            if streams.get(fd, (None,))[0] is not connection:
                continue
            event = f"data: {EVENT % (number, time.monotonic_ns())}\n\n".encode()
            try:
                connection.send(b"%x\r\n%s\r\n" % (len(event), event))
            except OSError:
                drop(fd)
                continue
            heapq.heappush(due, (at + INTERVAL, order, fd, connection, number + 1))


@dataclass
class Stream:
    socket: socket.socket
    opened_ns: int
    first_byte_ns: int | None = None
    pending: bytes = b""
    number: int = 0


@dataclass
class Streams:
    """Open event streams and what they delivered."""

    first_byte_ms: list = field(default_factory=list)
    delays_ms: list = field(default_factory=list)
    opening_ms: float = 0.0
    # Streams that ended, were refused, or skipped an event.
    broken: int = 0
    by_fd: dict = field(default_factory=dict)
    poll: select.epoll = field(default_factory=select.epoll)

    def open(self, port, count):
        """Opens `count` streams as fast as one client can, taking what already comes back in between, and waits for
        the first byte of each (bounded)."""
        started = time.monotonic()
        for _ in range(count):
            connection = socket.socket()
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = Stream(connection, time.monotonic_ns())
            code = connection.connect_ex(("127.0.0.1", port))
            if code not in (0, errno.EINPROGRESS):
                self.broken += 1
                connection.close()
                continue
            self.by_fd[connection.fileno()] = stream
            self.poll.register(connection, select.EPOLLOUT)
            self.take(0)
        self.opening_ms = (time.monotonic() - started) * 1000
        while self.silent() and time.monotonic() < started + OPEN_SECONDS:
            self.take(0.1)
        for fd in self.silent():
            self.broken += 1
            self.close(fd)

    def silent(self):
        return [fd for fd, stream in self.by_fd.items() if stream.first_byte_ns is None]

    def receive(self, seconds):
        """Takes events for that long. Delays are recorded from here on anew."""
        self.delays_ms = []
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.take(left)

    @contextlib.contextmanager
    def in_background(self):
        """Takes events while something else goes on. Delays are recorded anew."""
        self.delays_ms = []
        ended = threading.Event()

        def take():
            while not ended.is_set():
                self.take(0.05)

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def take(self, timeout):
        for fd, events in self.poll.poll(timeout):
            stream = self.by_fd[fd]
            if events & select.EPOLLOUT and not events & (select.EPOLLERR | select.EPOLLHUP):
                stream.socket.send(REQUEST)
                self.poll.modify(fd, select.EPOLLIN)
                continue
            try:
                data = stream.socket.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not self.read(stream, data, time.monotonic_ns()):
                self.broken += 1
                self.close(fd)

    def read(self, stream, data, now_ns):
        """False: this is not a stream that loses nothing."""
        if not data:
            return False
        if stream.first_byte_ns is None:
            if not data.startswith(b"HTTP/1.1 200 "):
                return False
            stream.first_byte_ns = now_ns
            self.first_byte_ms.append((now_ns - stream.opened_ns) / 1e6)
        # Chunk framing is left in place: an event is one small write, which no proxy has a reason to split.
        buffer, end = stream.pending + data, 0
        for match in STAMP.finditer(buffer):
            number, sent_ns = int(match[1]), int(match[2])
            if number != stream.number + 1:
                return False
            stream.number, end = number, match.end()
            self.delays_ms.append((now_ns - sent_ns) / 1e6)
        stream.pending = buffer[end:]
        return len(stream.pending) <= MAX_PENDING

    def close(self, fd):
        self.poll.unregister(fd)
        self.by_fd.pop(fd).socket.close()

    def close_all(self):
        for fd in list(self.by_fd):
            self.close(fd)
        self.poll.close()


if __name__ == "__main__":
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(int(sys.argv[1]))
