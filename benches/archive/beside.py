"""What reading and writing through a mount lose while the same workspace is archived."""

import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mounts
from measure import ENDING, MOUNTING, WORKING, Failure, drop_caches
from results import Results
from stage import Stage
from tree import digest

from copiers import archive
from jobs import Workspace

READ = 256 << 20
"""Bytes of the file that is read, cached."""
CREATED = 1000
"""How many files are created."""
TIMES = 5
"""How often each is done with nothing else going on, before and after."""
STEPS = {"read": "reading a cached file of 256 MiB", "create": "creating 1,000 files of 1 KiB"}
WAYS = {"alone": "alone", "daemon": "while its daemon archives", "command": "while `jobs archive --all` runs"}
"""Columns of the table."""


class Beside:
    """All that is needed for it."""

    def __init__(self, program: Path, workload: Path, stage: Stage):
        self._program = program
        self._workload = stage.install(workload)
        self._stage = stage

    def round(self, workspace: Workspace, results: Results) -> Iterator[str]:
        """Takes a sample of each step, alone and while archiving. Tells how it goes."""
        # A job in the making, which is not archived.
        scratch = workspace.primary / "jobs" / "my.module.scratch" / digest(0)
        scratch.mkdir(parents=True)
        with open(scratch / "file.bin", "wb") as file:
            for _ in range(READ >> 20):
                file.write(bytes(1 << 20))
        samples: dict[str, dict[str, list[float]]] = {way: {step: [] for step in STEPS} for way in WAYS}
        try:
            # Alone before and after: a machine that slows down or speeds up meanwhile does so for all.
            for way in (*WAYS, "alone"):
                workspace.clear()
                drop_caches()
                with self._mounted(workspace, way == "daemon"):
                    self._step("read", scratch)
                    for step, seconds in self._samples(workspace, scratch, way).items():
                        samples[way][step] += seconds
        finally:
            shutil.rmtree(scratch.parent)
        for way, steps in samples.items():
            for step, seconds in steps.items():
                title = f"{STEPS[step]} ({workspace.title})"
                row = results.row(f"{step}-beside-{workspace.name}", title)
                if seconds:
                    row.add(way, statistics.median(seconds), 0, 0)
                    yield f"{title}, {WAYS[way]}: {statistics.median(seconds):.3f} s ({len(seconds)} times)"
                else:
                    row.of(way).error = "archiving was over too soon"

    def _samples(self, workspace: Workspace, scratch: Path, way: str) -> dict[str, list[float]]:
        """Seconds of each step, again and again until archiving is over; a few times if nothing is to be archived."""
        samples: dict[str, list[float]] = {step: [] for step in STEPS}
        if way == "alone":
            for _ in range(TIMES):
                for step, seconds in samples.items():
                    seconds.append(self._step(step, scratch))
            return samples
        if way == "daemon":
            end = time.monotonic() + WORKING
            while (archived := workspace.named()) < workspace.count:
                if time.monotonic() > end:
                    raise Failure(f"the daemon has archived {archived} jobs of {workspace.count}")
                for step, seconds in samples.items():
                    took = self._step(step, scratch)
                    if (workspace.folder / "jobs").exists() and workspace.named() < workspace.count:
                        seconds.append(took)
            return samples
        command = archive(self._program, workspace)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                for step, seconds in samples.items():
                    took = self._step(step, scratch)
                    if process.poll() is None:
                        seconds.append(took)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode != 0:
            raise Failure(f"archiving ended with {process.returncode}")
        return samples

    def _step(self, step: str, scratch: Path) -> float:
        work = {
            "read": ["read", str(scratch / "file.bin")],
            "create": ["files", str(scratch), "--count", str(CREATED)],
        }[step]
        # What an earlier run of the program has left.
        shutil.rmtree(scratch / "files-0", ignore_errors=True)
        done = subprocess.run([str(self._workload), *work], capture_output=True, text=True, timeout=WORKING, check=False)
        if done.returncode != 0:
            raise Failure(" ".join(done.stderr.split()))
        return json.loads(done.stdout)[step]["seconds"]

    @contextmanager
    def _mounted(self, workspace: Workspace, archives: bool) -> Iterator[None]:
        """The workspace, mounted in place, by a daemon that archives by itself, or nothing."""
        command = [str(self._program), "--quiet", "--settings", str(workspace.settings), "mount"]
        command += [] if archives else ["--no-archive"]
        command += ["--foreground", str(workspace.primary)]
        with open(self._stage.logs / "xpmfs.log", "wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            if not mounts.wait(lambda: mounts.count(workspace.primary) > 0, MOUNTING):
                raise Failure("cannot mount")
            yield
        finally:
            mounts.unmount(workspace.primary)
            try:
                process.wait(ENDING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
