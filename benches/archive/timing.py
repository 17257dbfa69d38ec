"""One copy of a workspace: how long it takes until it is done as its way has it, and in how much memory."""

import subprocess
import tempfile
import threading
import time
from pathlib import Path

from measure import WORKING, Failure, drop_caches

from copiers import Copier
from jobs import Workspace

LOOK = 0.01
"""Seconds from one look at the memory to the next."""


def sample(workspace: Workspace, copier: Copier) -> tuple[float, int]:
    """Copies all jobs to an empty folder, cold. Gives seconds, and bytes of resident memory at the most."""
    workspace.clear()
    drop_caches()
    begun = time.monotonic()
    said, resident = run(copier.command(workspace))
    if copier.sync:
        # Of this disk alone: what others write elsewhere is not this one's.
        subprocess.run(["sync", "-f", str(workspace.folder)], check=True)
    seconds = time.monotonic() - begun
    if workspace.archived() != workspace.count:
        raise Failure(f"{workspace.archived()} jobs of {workspace.count} are there")
    # experimaestro's has a clock of its own.
    return float(said) if copier.name == "experimaestro" else seconds, resident


def run(command: list[str]) -> tuple[str, int]:
    """Runs a program; gives what it prints, and its resident memory at the most, in bytes."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        peak = Peak(process.pid)
        try:
            status = process.wait(WORKING)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            peak.stop()
        output.seek(0)
        said = output.read().strip()
    if status != 0:
        raise Failure(" ".join(said.split())[-500:] or f"ended with {status}")
    return said, peak.bytes


class Peak(threading.Thread):
    """Watches the most memory that a process has had. What `wait4` tells would count the memory of this process, before it became
    the other program."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self._over = threading.Event()
        self.bytes = 0
        self.start()

    def run(self) -> None:
        while not self._over.wait(LOOK):
            try:
                lines = self._status.read_text().splitlines()
            except OSError:
                return
            for line in lines:
                if line.startswith("VmHWM:"):
                    self.bytes = max(self.bytes, int(line.split()[1]) << 10)

    def stop(self) -> None:
        """Ends the watch."""
        self._over.set()
        self.join()
