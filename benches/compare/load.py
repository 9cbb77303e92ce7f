"""Load: wrk for HTTP/1.1 with and without TLS, h2load for HTTP/2; what came of it, and what CPU it took."""

import re
import subprocess
import time
from dataclasses import dataclass

from processes import tool

# Beyond the load itself: connections have to be opened, and the last answers may be late.
PATIENCE_SECONDS = 60
# Latencies in microseconds; the last figure sums up what went wrong.
REPORT = """
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("report %d %d %d %d %d %d\\n", summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(95), latency:percentile(99),
        e.connect + e.read + e.write + e.status + e.timeout))
end
"""
# Asks for /many/ID with the ids of a file, again and again; what %s adds says how the requests come.
MANY = """
local requests, at = {}, 0
for id in io.lines("%(ids)s") do
    requests[#requests + 1] = "GET /many/" .. id .. " HTTP/1.1\\r\\nHost: bench.example\\r\\n\\r\\n"
end
request = function()
    at = at %% #requests + 1
    return requests[at]
end
"""
# The same, each once; then the file that is named comes to be.
ONCE = """
local requests, at = {}, 0
for id in io.lines("%(ids)s") do
    requests[#requests + 1] = "GET /many/" .. id .. " HTTP/1.1\\r\\nHost: bench.example\\r\\n\\r\\n"
end
request = function()
    at = at + 1
    if at == #requests then io.open("%(done)s", "w"):close() end
    return requests[math.min(at, #requests)]
end
"""
# Asks for /many/1 to /many/N, in turn.
FILL = """
local asked, wanted = 0, %(count)d
request = function()
    asked = asked %% wanted + 1
    return "GET /many/" .. asked .. " HTTP/1.1\\r\\nHost: bench.example\\r\\n\\r\\n"
end
"""
UNTIL_SECONDS = 300


@dataclass
class Load:
    requests: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    # Of all processes of the proxy.
    cpu_seconds: float

    @property
    def rate(self):
        return self.requests / self.seconds

    @property
    def cpu_us(self):
        return self.cpu_seconds / self.requests * 1e6

    @property
    def busy(self):
        return self.cpu_seconds / self.seconds


def wrk(machine, proxy, path="/", *, seconds, connections=32, door="http", script="", fields=()):
    lua = machine.scratch / "load.lua"
    lua.write_text(script + REPORT)
    command = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", lua]
    command += [part for field in fields for part in ("-H", field)]
    before = proxy.cpu_seconds()
    output = run(proxy, [tool("wrk"), *command, proxy.url(path, door)], seconds)
    cpu = proxy.cpu_seconds() - before
    report = next((line.split()[1:] for line in output.splitlines() if line.startswith("report ")), None)
    if report is None or report[0] == "0":
        raise proxy.complaint(f"no request succeeded\n{output}")
    requests, duration_us, p50, p95, p99, errors = map(int, report)
    return Load(requests, duration_us / 1e6, p50 / 1e3, p95 / 1e3, p99 / 1e3, errors, cpu)


def fill(machine, proxy, count, made):
    """Asks for /many/1 to /many/COUNT until all have been made by the origin: `made` tells how many have. Answers CPU
    seconds of the proxy."""
    return until(machine, proxy, FILL % {"count": count}, lambda: made() >= count)[1]


def once(machine, proxy, ids):
    """Asks for each of these ids of /many/, in order. Answers seconds, and CPU seconds of the proxy."""
    file, done = machine.scratch / "once-ids.txt", machine.scratch / "once-done"
    file.write_text("\n".join(map(str, ids)))
    done.unlink(missing_ok=True)
    return until(machine, proxy, ONCE % {"ids": file, "done": done}, done.exists)


def until(machine, proxy, script, ended):
    """wrk runs as long as it is told to, so it is stopped when enough has been done."""
    lua = machine.scratch / "until.lua"
    lua.write_text(script)
    before, started = proxy.cpu_seconds(), time.monotonic()
    command = [tool("wrk"), "-t1", "-c32", f"-d{UNTIL_SECONDS}s", "-s", lua, proxy.url("/")]
    load = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    try:
        while not ended():
            if time.monotonic() > started + UNTIL_SECONDS or load.poll() is not None:
                raise proxy.complaint("not all requests were answered")
            time.sleep(0.01)
        return time.monotonic() - started, proxy.cpu_seconds() - before
    finally:
        load.kill()
        load.wait()


def h2load(machine, proxy, path, *, seconds, connections=8, streams=4):
    log = machine.scratch / "h2load.log"
    log.unlink(missing_ok=True)
    command = [f"-c{connections}", f"-m{streams}", "-t1", f"-D{seconds}", "--log-file", log]
    before = proxy.cpu_seconds()
    output = run(proxy, [tool("h2load"), *command, proxy.url(path, "h2")], seconds)
    cpu = proxy.cpu_seconds() - before
    counts = re.search(r"requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored", output)
    if counts is None or counts[2] == "0":
        raise proxy.complaint(f"no request succeeded\n{output}")
    # Start of the request, status, and how long it took, in microseconds.
    times = sorted(int(line.split(b"\t")[2]) for line in log.read_bytes().splitlines())
    at = lambda rank: times[min(len(times) - 1, len(times) * rank // 100)] / 1e3 if times else float("nan")
    # What was under way when time was up counts as failed with h2load; it is no error of the proxy's.
    errors = max(0, int(counts[3]) + int(counts[4]) - connections * streams)
    return Load(int(counts[2]), seconds, at(50), at(95), at(99), errors, cpu)


def run(proxy, command, seconds):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=seconds + PATIENCE_SECONDS)
    if done.returncode != 0:
        raise proxy.complaint(f"{command[0]}: {done.stdout}{done.stderr}")
    return done.stdout


def many(machine, ids):
    """The script that asks for these ids of /many/ in turn."""
    file = machine.scratch / "ids.txt"
    file.write_text("\n".join(map(str, ids)))
    return MANY % {"ids": file}
