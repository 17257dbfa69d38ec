"""Measures archiving: durable copies of finished jobs with their hashes, against what people use to copy.

Run by `scripts/bench archive`; `docs/benchmark-archive.md` tells how to read what it prints. What both benchmarks need is in
`benches/filesystems`.

    choices.py    the command line
    disk.py       a disk of its own: an ext4 image
    jobs.py       the workspaces that are archived
    copiers.py    what copies them, and how each is called
    own.py        experimaestro's own archiver, in its own Python
    timing.py     one copy: how long it takes, and in how much memory
    beside.py     what reading and writing through a mount lose meanwhile
    outcome.py    the figures to reach, the table, the page, JSON
"""

import signal
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "filesystems"))

# These are found there.
import machine  # noqa: E402
from measure import Failure  # noqa: E402
from results import Results  # noqa: E402
from stage import Stage, say  # noqa: E402

from beside import Beside  # noqa: E402
from choices import Choices, parse  # noqa: E402
from copiers import Copier, every  # noqa: E402
from disk import Disk  # noqa: E402
from jobs import Workspace, many, one  # noqa: E402
from outcome import Outcome  # noqa: E402
from timing import sample  # noqa: E402

SETTLING = 5
"""Seconds: xpmfs leaves alone for a moment what has just been written, and nothing of that is to be measured."""
STOPPED = 130
"""The exit status of a program that Ctrl-C has ended."""


def main() -> int:
    """Gives the exit status: 1 if xpmfs or `cp` could not be measured."""
    choices = parse()
    # As Ctrl-C: what is mounted is unmounted on the way out.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        machine.check(choices.directory, choices.image, 1000, 0)
        with Stage(choices.directory) as stage:
            outcome = conduct(stage, choices)
    except machine.Unfit as unfit:
        say(str(unfit))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return STOPPED
    print(outcome.text())
    for file, content in ((choices.json, outcome.json()), (choices.markdown, outcome.markdown())):
        if file:
            file.write_text(content)
            say(f"{file} is written")
    if outcome.stopped:
        return STOPPED
    return 1 if outcome.results.failed("cp") or outcome.results.failed("xpmfs") else 0


def conduct(stage: Stage, choices: Choices) -> Outcome:
    """Does everything on the stage. If it is stopped, what has been measured until then is reported."""
    say(f"making a disk of {choices.image >> 30} GiB")
    disk = Disk(stage.root / "disk.img", stage.directory("disk"), choices.image)
    program = stage.install(choices.binary)
    copiers = every(program, stage.install(choices.bare), choices.python, choices.systems.split(","))
    settings = {"rounds": choices.rounds, "quick": choices.quick, **vars(choices.scale)}
    outcome = Outcome(machine.describe(disk.root), settings, copiers)
    try:
        workspaces = []
        if "jobs" in choices.only:
            say(f"making {choices.scale.jobs:,} jobs")
            workspaces.append(many(disk.root / "jobs", choices.scale.jobs))
        if "large" in choices.only:
            say(f"making a job of {choices.scale.large >> 20:,} MiB")
            workspaces.append(one(disk.root / "large", choices.scale.large))
        time.sleep(SETTLING)
        for number in range(choices.rounds):
            for workspace in workspaces:
                first = number % len(copiers)
                for copier in copiers[first:] + copiers[:first]:
                    said = copied(workspace, copier, outcome.results)
                    say(f"round {number + 1} of {choices.rounds}: {workspace.title}: {copier.title}: {said}")
        if "beside" in choices.only:
            beside = Beside(program, choices.workload, stage)
            for number in range(choices.rounds):
                for workspace in workspaces:
                    try:
                        for line in beside.round(workspace, outcome.results):
                            say(f"round {number + 1} of {choices.rounds}: {line}")
                    except (Failure, OSError) as failure:
                        title = f"beside archiving ({workspace.title})"
                        outcome.results.row(f"failed-beside-{workspace.name}", title).of("xpmfs").error = str(failure)
                        say(f"{title}: {failure}")
    except KeyboardInterrupt:
        say("stopped")
        outcome.stopped = True
    return outcome


def copied(workspace: Workspace, copier: Copier, results: Results) -> str:
    """Takes one sample, or notes why there is none. Gives what came out, in a few words."""
    row = results.row(workspace.name, workspace.title)
    memory = results.row(f"{workspace.name}-memory", f"{workspace.title}: resident memory", "MB")
    if row.of(copier.name).error:
        return "left out, as it has failed"
    try:
        seconds, resident = sample(workspace, copier)
    except (Failure, OSError) as failure:
        row.of(copier.name).error = str(failure)
        return str(failure)
    row.add(copier.name, seconds, workspace.count, 0)
    memory.add(copier.name, resident / 1e6, workspace.count, 0)
    return f"{seconds:.2f} s, {resident / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
