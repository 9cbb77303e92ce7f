"""The proxies that are compared, configured alike: cached below /hit/ and /many/, passed on elsewhere, connections to the
origin kept; and the origin.

Each proxy opens three doors: http, h2 (HTTP/2 with prior knowledge) and, if it can, tls.
"""

import os
import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from processes import Failure, Machine, Server, free_port, tool

SIZES = {"1k": 1024, "20k": 20 * 1024, "64k": 64 * 1024}
OPEN_FILES = 1 << 16
MIB = 1 << 20


@dataclass
class Setup:
    """What a proxy is started with, beside its origin."""

    machine: Machine
    # `None`: Forebay does not take part.
    forebay: Path | None
    # Bytes of its cache.
    cache: int = 256 * MIB
    # Answers below /events; `None`: the origin.
    events: Server | None = None
    # A program that Forebay is run by.
    before: list = field(default_factory=list)
    # Of Forebay.
    threads: int = 1
    # Where Forebay runs instead of the proxies' core.
    cores: str | None = None

    def start(self, kind, origin):
        name, _, log = kind.partition("+")
        start = {"nginx": start_nginx, "haproxy": start_haproxy, "varnish": start_varnish, "forebay": start_forebay}[name]
        return start(self, kind, origin, log == "log")


def version(name):
    match name:
        case "nginx":
            found = subprocess.run([tool("nginx"), "-v"], capture_output=True, text=True).stderr
            return found.strip().removeprefix("nginx version: ")
        case "haproxy":
            found = subprocess.run([tool("haproxy"), "-v"], capture_output=True, text=True).stdout
            return "HAProxy " + found.split()[2]
        case "varnish":
            found = subprocess.run([tool("varnishd"), "-V"], capture_output=True, text=True)
            return "Varnish " + (found.stdout + found.stderr).split("varnish-")[1].split()[0]


def doors(*names):
    return {name: free_port() for name in names}


def certificate(machine):
    """A PEM file with a key and a certificate for it."""
    both = machine.scratch / "certificate.pem"
    if not both.exists():
        key, cert = machine.scratch / "key.pem", machine.scratch / "cert.pem"
        subprocess.run(
            [tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-subj", "/CN=127.0.0.1", "-days", "30", "-keyout", key, "-out", cert],
            check=True,
            capture_output=True,
        )
        both.write_text(cert.read_text() + key.read_text())
    return both


# The origin


def start_origin(machine):
    """Static files of all sizes, below /pass/ (`no-store`), /hit/ and /few/ (fresh for an hour), whose heads and bodies leave in
    a write each; /whole/1k is one of them (`no-store`) out of memory in a single write, as most applications answer; /many/N is a
    fresh 1 KiB for every N; /write takes anything."""
    files = machine.scratch / "files"
    files.mkdir(exist_ok=True)
    for name, size in SIZES.items():
        (files / name).write_bytes(bytes(random.Random(size).choices(b"abcdefghijklmnopqrstuvwxyz\n", k=size)))
    http = f"""
    log_format one x;
    access_log off;
    open_file_cache max=100;
    etag off;
    server {{
        LISTEN
        location /pass/ {{ alias {files}/; add_header Cache-Control no-store; }}
        location = /whole/1k {{ default_type text/plain; add_header Cache-Control no-store; return 200 "{(files / '1k').read_text()}"; }}
        location ~ ^/(hit|few)/(.+)$ {{ alias {files}/$2; add_header Cache-Control max-age=3600; }}
        location /many/ {{ rewrite ^ /made last; }}
        location = /made {{
            internal;
            alias {files}/1k;
            access_log {machine.scratch}/made.log one buffer=4k flush=100ms;
            add_header Cache-Control max-age=3600;
        }}
        location /write {{ return 204; }}
    }}
"""
    return nginx(machine, "origin", machine.load_core, doors("http"), http)


def made_by_origin(machine):
    """How often the origin was asked for something below /many/: two bytes of log each, written within 0.1 s."""
    log = machine.scratch / "made.log"
    return log.stat().st_size // 2 if log.exists() else 0


# What nobody can be cheaper than


def start_floor(machine):
    """A loop that answers hits without looking at anything but the path."""
    program = machine.scratch / "floor"
    if not program.exists():
        source = Path(__file__).with_name("floor.c")
        subprocess.run([tool("cc"), "-O2", "-o", program, source], check=True)
    ports = doors("http")
    return machine.start("floor", ports, machine.proxy_core, [program, str(ports["http"])])


# nginx


def start_nginx(setup, name, origin, log):
    machine = setup.machine
    access = f"{machine.scratch}/nginx-access.log combined" if log else "off"
    pem = certificate(machine)
    events = (setup.events or origin).port
    # What an operator writes: connections to the origin kept, the client's address passed on, event streams unbuffered.
    http = f"""
    access_log {access};
    proxy_cache_path cache levels=1:2 keys_zone=hits:{max(10, setup.cache // MIB // 8)}m max_size={setup.cache} use_temp_path=off;
    upstream app {{ server 127.0.0.1:{origin.port}; keepalive 256; keepalive_requests 100000000; }}
    upstream events {{ server 127.0.0.1:{events}; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    ssl_certificate {pem};
    ssl_certificate_key {pem};
    ssl_protocols TLSv1.3;
    server {{
        LISTEN
        location / {{ proxy_pass http://app; }}
        location ~ ^/(hit|many)/ {{
            proxy_pass http://app;
            proxy_cache hits;
            proxy_cache_lock on;
            proxy_cache_revalidate on;
            add_header Cache-Status $upstream_cache_status;
        }}
        location /events {{ proxy_pass http://events; proxy_buffering off; proxy_read_timeout 300s; }}
    }}
"""
    return nginx(machine, name, machine.proxy_core, doors("http", "h2", "tls"), http)


def nginx(machine, name, core, ports, http):
    home = machine.scratch / name
    home.mkdir(exist_ok=True)
    options = {"http": "", "h2": " http2", "tls": " ssl"}
    listen = "\n".join(f"listen 127.0.0.1:{port} backlog=4096{options[door]};" for door, port in ports.items())
    # `user` is for root only; without root nginx warns about it. The paths are those that default to /var.
    user = "user root;" if os.geteuid() == 0 else ""
    paths = " ".join(f"{kind}_temp_path {home}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    conf = home / "nginx.conf"
    conf.write_text(f"""
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {OPEN_FILES};
pid {home}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {OPEN_FILES // 2}; }}
http {{
    {paths}
    default_type text/plain;
    sendfile on;
    tcp_nodelay on;
    server_tokens off;
    keepalive_timeout 75s;
    keepalive_requests 100000000;
    {http.replace("LISTEN", listen)}
}}
""")
    return machine.start(name, ports, core, [tool("nginx"), "-e", "stderr", "-p", home, "-c", conf])


# HAProxy


def start_haproxy(setup, name, origin, _log):
    machine, ports = setup.machine, doors("http", "h2", "tls")
    conf = machine.scratch / "haproxy.cfg"
    # Its cache is bounded below 4 GiB.
    conf.write_text(f"""
global
    nbthread 1
    maxconn 12000
    no strict-limits
    tune.h2.max-concurrent-streams 100
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    option forwardfor
    http-reuse always
cache hits
    total-max-size {min(setup.cache // MIB, 4095)}
    max-object-size 131072
    max-age 3600
frontend door
    bind 127.0.0.1:{ports["http"]} backlog 4096
    bind 127.0.0.1:{ports["h2"]} backlog 4096 proto h2
    bind 127.0.0.1:{ports["tls"]} backlog 4096 ssl crt {certificate(machine)} ssl-min-ver TLSv1.3
    acl cached path_beg /hit/ /many/
    http-request cache-use hits if cached
    http-response cache-store hits
    http-after-response set-header Cache-Status hit if {{ res.cache_hit }}
    # wrk waits for a body where a 304 tells its length.
    http-after-response del-header content-length if {{ status 304 }}
    default_backend app
backend app
    server app 127.0.0.1:{origin.port}
""")
    return machine.start(name, ports, machine.proxy_core, [tool("haproxy"), "-db", "-f", conf])


# Varnish


def start_varnish(setup, name, origin, _log):
    machine, ports = setup.machine, doors("http")
    # It speaks both versions on one port, and no TLS.
    ports["h2"] = ports["http"]
    home = machine.scratch / name
    home.mkdir(exist_ok=True)
    vcl = home / "bench.vcl"
    vcl.write_text(f"""
vcl 4.1;
backend app {{ .host = "127.0.0.1"; .port = "{origin.port}"; }}
sub vcl_recv {{ if (req.url !~ "^/(hit|many)/") {{ return (pass); }} }}
sub vcl_deliver {{ if (obj.hits > 0) {{ set resp.http.Cache-Status = "hit"; }} }}
""")
    command = [tool("varnishd"), "-F", "-j", "none", "-n", home, "-a", f"127.0.0.1:{ports['http']}", "-f", vcl]
    command += ["-s", f"malloc,{setup.cache}", "-p", "feature=+http2", "-p", "thread_pools=1", "-p", "listen_depth=4096"]
    return machine.start(name, ports, machine.proxy_core, command)


# Forebay


def start_forebay(setup, name, origin, log):
    if setup.forebay is None:
        raise Failure("no Forebay to start")
    machine, ports = setup.machine, doors("http", "h2", "tls")
    certificate(machine)
    access = f'{{format: combined, path: "{machine.scratch}/forebay-access.log"}}' if log else "false"
    events = (setup.events or origin).port
    conf = machine.scratch / f"{name}.yaml"
    conf.write_text(f"""
listeners:
  - address: 127.0.0.1:{ports["http"]}
  - {{ address: "127.0.0.1:{ports["h2"]}", http2: true }}
  - address: 127.0.0.1:{ports["tls"]}
    tls: {{ certificates: [{{ cert: {machine.scratch}/cert.pem, key: {machine.scratch}/key.pem }}] }}
upstreams:
  app: {{ servers: ["127.0.0.1:{origin.port}"], keepalive: 256 }}
  events: {{ servers: ["127.0.0.1:{events}"] }}
routes:
  - {{ name: events, match: {{ path_prefix: /events }}, upstream: events }}
  - {{ name: few, match: {{ path_prefix: /few }}, upstream: app, rate_limit: {{ requests: 1, per: 1d }} }}
  - {{ name: app, match: {{ path_prefix: / }}, upstream: app }}
cache: {{ memory: {{ size: {setup.cache}B }} }}
metrics: {{ listen: "127.0.0.1:{free_port()}" }}
log: {{ access: {access} }}
server: {{ threads: {setup.threads} }}
""")
    return machine.start(name, ports, setup.cores or machine.proxy_core, [*setup.before, setup.forebay, "run", "--config", conf])
