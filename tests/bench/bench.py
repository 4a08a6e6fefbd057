"""What `make bench` prints: bench.py PROGRAM WORK_DIRECTORY [local] [live] [start]

Ratios within one run, side by side with the same bytes read directly, with the engine alone, and with btfs.
local: a complete file through the mount (passthrough and not) against the same file read directly.
live: a download through the mount against the same engine downloading by itself.
start: first byte and first fragment of `ffmpeg -c copy` on a swarm of 8 Mbit/s, against btfs on the same swarm.

Root gets a network namespace of its own and a dropped page cache before each cold read; without root the page cache is
dropped for the stored file alone, which is said.
"""
import contextlib
import http.server
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import libtorrent

HERE = os.path.dirname(os.path.abspath(__file__))
SEEDER = os.path.join(HERE, "..", "whole", "seeder.py")
MIB, GIB = 1 << 20, 1 << 30
LOCAL_BYTES = GIB
PIECE = MIB
# 4 seeders of 250 kB/s each: a swarm of 8 Mbit/s, for a film of 5 Mbit/s.
SEEDERS, SEEDER_RATE = 4, 250_000
START_LIMIT = 180


def log(text=""):
    print(text, flush=True)


def row(*cells):
    log("  " + "".join(str(cell).ljust(34) if index == 0 else str(cell).rjust(16) for index, cell in enumerate(cells)))


def run(*command, **options):
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, **options)


def make_torrent(source, torrent, announce=None):
    storage = libtorrent.file_storage()
    libtorrent.add_files(storage, source)
    creation = libtorrent.create_torrent(storage, PIECE, libtorrent.create_torrent.v1_only)
    if announce:
        creation.add_tracker(announce)
    libtorrent.set_piece_hashes(creation, os.path.dirname(source))
    content = creation.generate()
    with open(torrent, "wb") as file:
        file.write(libtorrent.bencode(content))
    return str(libtorrent.torrent_info(torrent).info_hash())


@contextlib.contextmanager
def seeder(torrent, directory, address="127.0.0.1", limit=0):
    command = ["/usr/bin/python3", SEEDER, "--address", address, "--limit", str(limit), torrent, directory]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield address, json.loads(process.stdout.readline())["port"]
    finally:
        process.kill()
        process.wait()


class Mount:
    """`magnetfs mount` in a process of its own."""

    def __init__(self, program, work, sources, options=(), keep=None):
        self.work = keep or tempfile.mkdtemp(prefix="mount-", dir=work)
        self.path = os.path.join(self.work, "mount")
        self.data = os.path.join(self.work, "data")
        os.makedirs(self.path, exist_ok=True)
        self.client = [program, "--data-dir", self.data, "--socket", os.path.join(self.work, "socket")]
        quiet = ["--listen", "off", "--dht", "off", "--lsd", "off", "--upnp", "off"]
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            self.client + ["mount", self.path, *sources, *quiet, *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(os.path.join(self.work, "log"), "w"), text=True)
        line = self.process.stdout.readline()
        if not line.startswith("mounted"):
            raise SystemExit(f"the mount did not come up: see {self.work}/log")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            subprocess.run(["umount", "-l", self.path], check=False)

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def list(self):
        return json.loads(subprocess.check_output(self.client + ["list", "--json"]))

    def status(self):
        return json.loads(subprocess.check_output(self.client + ["status", "--json"]))

    def wait_complete(self):
        while self.list()[0]["bytes_here"] < self.list()[0]["size"]:
            time.sleep(0.02)


def drop_caches(*paths):
    os.sync()
    if os.geteuid() == 0:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def timed(command, daemon=None):
    """Seconds on the clock, and of CPU: the child's and the daemon's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    daemon_before = daemon.cpu() if daemon else 0
    start = time.monotonic()
    run(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    took = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, cpu, (daemon.cpu() - daemon_before if daemon else 0)


def sequential(name, path, stored, size, daemon=None, base=None):
    rates, reader, server = [], [], []
    for _ in range(3):
        drop_caches(stored)
        took, cpu, daemon_cpu = timed(["dd", f"if={path}", "of=/dev/null", "bs=1M"], daemon)
        rates.append(size / MIB / took)
        reader.append(cpu * GIB / size)
        server.append(daemon_cpu * GIB / size)
    rate = max(rates)
    row(name, f"{rate:.0f} MiB/s", f"{rate / (base or rate):.2f} x direct", f"{min(server):.2f} + {min(reader):.2f}")
    return rate


def random_reads(name, path, base=None):
    report = json.loads(subprocess.check_output(
        ["fio", "--name=random", f"--filename={path}", "--rw=randread", "--bs=64k", "--ioengine=psync", "--readonly",
         "--runtime=4", "--time_based", "--norandommap", "--randseed=7", "--output-format=json"]))["jobs"][0]["read"]
    median = report["clat_ns"]["percentile"]["50.000000"] / 1000
    row(name, f"{report['iops']:.0f} /s", f"{report['iops'] / (base or report['iops']):.2f} x direct", f"{median:.0f} us")
    return report["iops"]


def bench_local(program, work):
    log(f"\nlocal: a complete file of {LOCAL_BYTES / GIB:.0f} GiB, cold page cache, best of 3"
        + ("" if os.geteuid() == 0 else " (not root: the mount's own pages stay cached)"))
    source = os.path.join(work, "random.bin")
    run("sh", "-c", f"head -c {LOCAL_BYTES} /dev/urandom > {source}")
    torrent = os.path.join(work, "random.torrent")
    info_hash = make_torrent(source, torrent)
    home = tempfile.mkdtemp(prefix="local-", dir=work)
    with seeder(torrent, work) as (address, port):
        with Mount(program, work, [torrent], ["--trackers", "off", "--download", "whole", "--peer",
                                              f"{address}:{port}"], keep=home) as mount:
            mount.wait_complete()
    stored = os.path.join(home, "data", "files", info_hash, "random.bin")
    row("sequential, dd bs=1M", "rate", "ratio", "CPU s/GiB")
    row("", "", "", "(daemon + reader)")
    base = sequential("direct", stored, stored, LOCAL_BYTES)
    modes = [("mount, passthrough", "on"), ("mount, through the daemon", "off")]
    for name, passthrough in modes:
        with Mount(program, work, [], ["--passthrough", passthrough], keep=home) as mount:
            if passthrough == "on" and not mount.status()["passthrough"]:
                row(name, "not offered here")
                continue
            sequential(name, os.path.join(mount.path, "random.bin"), stored, LOCAL_BYTES, mount, base)
    row("random 64 KiB, fio psync", "reads", "ratio", "median")
    base = random_reads("direct", stored)
    for name, passthrough in modes:
        with Mount(program, work, [], ["--passthrough", passthrough], keep=home) as mount:
            if passthrough == "off" or mount.status()["passthrough"]:
                random_reads(name, os.path.join(mount.path, "random.bin"), base)
    return source, torrent


def bench_live(program, work):
    source, torrent = os.path.join(work, "random.bin"), os.path.join(work, "random.torrent")
    if not os.path.exists(torrent):
        run("sh", "-c", f"head -c {LOCAL_BYTES} /dev/urandom > {source}")
        make_torrent(source, torrent)
    size = os.path.getsize(source)
    log(f"\nlive: downloading {size / GIB:.0f} GiB from one libtorrent seeder on loopback, unlimited")
    row("", "rate", "ratio", "daemon CPU s/GiB")
    with seeder(torrent, work) as (address, port):
        peer = ["--trackers", "off", "--peer", f"{address}:{port}"]
        with Mount(program, work, [torrent], peer + ["--download", "whole"]) as mount:
            mount.wait_complete()
            base = size / MIB / (time.monotonic() - mount.started)
            row("the engine by itself", f"{base:.0f} MiB/s", "1.00", f"{mount.cpu() * GIB / size:.2f}")
        shutil.rmtree(mount.work)
        with Mount(program, work, [torrent], peer) as mount:
            took, _, _ = timed(["dd", f"if={mount.path}/random.bin", "of=/dev/null", "bs=1M"], mount)
            rate = size / MIB / (time.monotonic() - mount.started)
            row("read through the mount", f"{rate:.0f} MiB/s", f"{rate / base:.2f}", f"{mount.cpu() * GIB / size:.2f}")
        shutil.rmtree(mount.work)


class Tracker(http.server.BaseHTTPRequestHandler):
    peers = b""

    def do_GET(self):
        body = libtorrent.bencode({b"interval": 60, b"peers": Tracker.peers})
        if not urllib.parse.urlparse(self.path).path.endswith("/announce"):
            body = b"d14:failure reason9:not here.e"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def until(deadline, check):
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.01)
    return False


def first_byte(path, deadline):
    """Waits for the name and for one byte of it, as `head -c1` does."""
    def read():
        return subprocess.run(["head", "-c1", path], capture_output=True, check=False).stdout != b""
    return until(deadline, read)


def first_fragment(path, deadline, seek=None):
    """Waits for the first moof and mdat of a stream copy."""
    command = ["ffmpeg", "-v", "error", "-nostdin", *(["-ss", str(seek)] if seek else []), "-i", path, "-c", "copy",
               "-movflags", "frag_every_frame+empty_moov+default_base_moof", "-f", "mp4", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    timer = threading.Timer(max(deadline - time.monotonic(), 0), process.kill)
    timer.start()
    seen = b""
    while b"mdat" not in seen:
        part = process.stdout.read1(65536)
        if not part:
            break
        seen += part
    timer.cancel()
    process.kill()
    process.wait()
    return b"mdat" in seen


@contextlib.contextmanager
def btfs(work, torrent):
    home = tempfile.mkdtemp(prefix="btfs-", dir=work)
    path = os.path.join(home, "mount")
    os.makedirs(path)
    process = subprocess.Popen(
        ["btfs", "-f", "--silent", "--keep", f"--data-directory={home}/data", torrent, path],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=False, stderr=subprocess.DEVNULL)
        process.kill()
        process.wait()


def bench_start(program, work):
    film_directory = os.path.join(work, "film")
    os.makedirs(film_directory, exist_ok=True)
    film = os.path.join(film_directory, "film.mkv")
    log(f"\nstart: a film of 5 Mbit/s, {SEEDERS} seeders of {SEEDER_RATE // 1000} kB/s each (8 Mbit/s together), pieces of 1 MiB;"
        "\n       seconds from the start of the client, then from the start of FFmpeg")
    if not os.path.exists(film):
        run("ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i",
            "testsrc2=size=1280x720:rate=24:duration=120,noise=alls=12:allf=t", "-c:v", "libx264", "-preset",
            "ultrafast", "-g", "48", "-pix_fmt", "yuv420p", "-b:v", "5M", "-maxrate", "5M", "-bufsize", "5M", film)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tracker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    torrent = os.path.join(work, "film.torrent")
    make_torrent(film, torrent, f"http://127.0.0.1:{server.server_port}/announce")
    row("", "first byte", "first fragment", "fragment at 90 s")
    with contextlib.ExitStack() as stack:
        # A client keeps one connection to an address, so each seeder has its own.
        peers = [stack.enter_context(seeder(torrent, film_directory, f"127.0.1.{number + 1}", SEEDER_RATE))
                 for number in range(SEEDERS)]
        Tracker.peers = b"".join(bytes(map(int, address.split("."))) + port.to_bytes(2, "big") for address, port in peers)

        def measure(name, path):
            # A client of its own for each figure: what one reads would serve the other.
            cells = []
            for wait in (first_byte, first_fragment, lambda path, deadline: first_fragment(path, deadline, 90)):
                with path() as (mountpoint, started):
                    file = os.path.join(mountpoint, "film.mkv")
                    deadline = started + START_LIMIT
                    there = until(deadline, lambda: subprocess.run(["test", "-e", file], check=False).returncode == 0)
                    ended = there and wait(file, deadline)
                    cells.append(f"{time.monotonic() - started:.1f} s" if ended else f"> {START_LIMIT} s")
            row(name, *cells)

        @contextlib.contextmanager
        def ours():
            with Mount(program, work, [torrent]) as mount:
                yield mount.path, mount.started

        @contextlib.contextmanager
        def theirs():
            started = time.monotonic()
            with btfs(work, torrent) as path:
                yield path, started

        measure("magnetfs", ours)
        if shutil.which("btfs"):
            measure("btfs", theirs)
        else:
            row("btfs", "not installed")
    server.shutdown()


def main():
    program, work, *parts = sys.argv[1:]
    if os.geteuid() == 0 and "MAGNETFS_BENCH_NAMESPACE" not in os.environ:
        # Nothing of this leaves the machine, also where btfs would look for a DHT.
        os.environ["MAGNETFS_BENCH_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh",
                              sys.executable, *sys.argv])
    work = tempfile.mkdtemp(prefix="bench-", dir=os.path.abspath(work))
    try:
        for part in parts or ["local", "live", "start"]:
            {"local": bench_local, "live": bench_live, "start": bench_start}[part](os.path.abspath(program), work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
