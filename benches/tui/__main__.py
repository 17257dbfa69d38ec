"""Measures the dashboard with many jobs: the first screen, the answer to a key, memory.

The dashboard runs in a terminal of this process, so that what it writes is seen at once.
"""

import argparse
import fcntl
import json
import os
import pty
import select
import shutil
import statistics
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

TASKS = 10
LIMITS = {"first screen": 1.0, "jobs": None, "key": 0.05, "memory": 200.0}


def make(top, jobs):
    """Makes a workspace of finished jobs, every other of which has a copy in a folder."""
    primary, backup = top / "primary", top / "backup"
    run = primary / "experiments/tune/20260118_170744"
    run.mkdir(parents=True)
    (primary / ".__experimaestro__").touch()
    lines = []
    for number in range(jobs):
        task, digits = f"my.module.task{number % TASKS}", f"{number:064x}"
        name = task.rsplit(".", 1)[1]
        for place in [primary, backup] if number % 2 else [primary]:
            job = place / "jobs" / task / digits
            job.mkdir(parents=True)
            (job / f"{name}.done").touch()
        line = {"job_id": digits, "task_id": task, "tags": {"model": "bm25", "lr": 0.1}, "timestamp": 1768756064.0 + number}
        lines.append(json.dumps(line) + "\n")
    (run / "jobs.jsonl").write_text("".join(lines))
    (run / "status.json").write_text(json.dumps({"status": "done", "job_states": {}}))
    (run.parent / "current").symlink_to(run.name)
    settings = top / "settings.yaml"
    settings.write_text(
        f"workspaces:\n  - id: bench\n    path: {primary}\n    folders:\n      - {{path: {backup}, mode: backup}}\n"
    )
    return settings


class Dashboard:
    def __init__(self, binary, settings, top, rows=60, columns=200):
        self.began = time.monotonic()
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "XDG_RUNTIME_DIR": str(top)}
            # The size must be there before the program asks for it.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execve(binary, [str(binary), "--settings", str(settings), "tui"], environment)

    def wait_for(self, text, limit=120):
        """Reads until a text was written; returns the time since the start."""
        seen, end = b"", time.monotonic() + limit
        while text not in seen:
            self.read(seen_until=end)
            seen = seen[-65536:] + self.last
            if time.monotonic() > end:
                sys.exit(f"{text!r} did not show in {limit} s")
        return time.monotonic() - self.began

    def read(self, seen_until):
        self.last = b""
        ready, _, _ = select.select([self.terminal], [], [], max(0, seen_until - time.monotonic()))
        if ready:
            self.last = os.read(self.terminal, 1 << 20)

    def quiet(self, seconds=0.1, limit=10):
        """Reads until nothing was written for a while."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            ready, _, _ = select.select([self.terminal], [], [], seconds)
            if not ready:
                return
            os.read(self.terminal, 1 << 20)

    def key(self, key):
        """Presses a key; returns how long it takes until something of the answer is written."""
        self.quiet()
        began = time.monotonic()
        os.write(self.terminal, key)
        ready, _, _ = select.select([self.terminal], [], [], 10)
        if not ready:
            sys.exit(f"{key!r} was not answered in 10 s")
        return time.monotonic() - began

    def memory(self):
        """The most memory that its processes have had, in MiB."""
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
                if self.pid in (int(stat.parent.name), parent):
                    status = stat.with_name("status").read_text()
                    total += int(status.split("VmHWM:")[1].split()[0])
            except (OSError, IndexError):
                continue
        return total / 1024

    def quit(self):
        os.write(self.terminal, b"q")
        os.waitpid(self.pid, 0)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench tui", description=__doc__.split("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=100_000, help="how many jobs the workspace has")
    parser.add_argument("--quick", action="store_true", help="2000 jobs: shows in a moment that it works; no figure is too large")
    parser.add_argument("--directory", type=Path, help="where the workspace is made [default: that of temporary files]")
    parser.add_argument("--binary", type=Path, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    jobs = 2000 if arguments.quick else arguments.jobs
    top = Path(tempfile.mkdtemp(prefix="xpmfs-bench-", dir=arguments.directory)).resolve()
    try:
        print(f"making {jobs} jobs in {top}", file=sys.stderr)
        settings = make(top, jobs)
        dashboard = Dashboard(arguments.binary.resolve(), settings, top)
        first = dashboard.wait_for(b"1 Jobs")
        listed = dashboard.wait_for(f"{jobs} jobs".encode())
        dashboard.quiet(1)
        keys = {}
        for name, key in {
            "down": b"j", "page": b"\x1b[6~", "last": b"G", "sort by state": b"S", "sort by name": b"O", "sort by date": b"D",
            "search, first letter": b"/t", "search, more": b"ask1", "all": b"\x1b", "without a second copy": b"n", "clear": b"c",
        }.items():
            keys[name] = dashboard.key(key)
        # It goes on listing the jobs while keys are pressed.
        during = [dashboard.key(b"j") for _ in range(50)]
        memory = dashboard.memory()
        dashboard.quit()
    finally:
        shutil.rmtree(top, ignore_errors=True)
    print(f"| what, with {jobs} jobs | measured | at most |\n| --- | ---: | ---: |")
    print(f"| first screen | {first * 1000:.0f} ms | 1000 ms |")
    print(f"| first screen with the jobs | {listed * 1000:.0f} ms | |")
    for name, seconds in keys.items():
        print(f"| key: {name} | {seconds * 1000:.0f} ms | 50 ms |")
    print(f"| key: 50 times down, median | {statistics.median(during) * 1000:.0f} ms | 50 ms |")
    print(f"| key: 50 times down, slowest | {max(during) * 1000:.0f} ms | 50 ms |")
    print(f"| memory, the most | {memory:.0f} MiB | 200 MiB |")
    if arguments.quick:
        return
    slow = [name for name, seconds in {**keys, "down": max(during)}.items() if seconds > LIMITS["key"]]
    if first > LIMITS["first screen"] or slow or memory > LIMITS["memory"]:
        sys.exit(f"more than allowed: {', '.join(slow) or 'first screen or memory'}")


if __name__ == "__main__":
    main()
