"""Measures file systems side by side over the same trees.

Run by `scripts/bench`; `docs/benchmark.md` tells how to read what it prints.

    options.py    the command line
    stage.py      a directory of its own, and cleaning up
    mounts.py     what is mounted
    machine.py    what it runs on, and whether that will do
    tree.py       the workspaces that are measured on
    systems.py    the file systems, and how each is set up
    libfuse.py    one of them, built from its source
    workloads.py  what is measured, and how much of it
    measure.py    one workload on one file system
    million.py    memory, and mounting, of large workspaces
    tables.py     tables for a terminal and a page
    results.py    samples, medians, ratios
    targets.py    the figures to reach
    report.py     tables, page, JSON

The work itself, and its clock, is the program `examples/workload`.
"""

import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Optional

import libfuse
import machine
import million
from measure import Bench, Failure
from options import Options, listing, parse
from report import Report
from results import Results
from stage import Stage, say
from systems import System, Xpmfs, every
from targets import judge
from tree import Tree, data, ordinary_user, workspace
from workloads import Scale, Workload

STOPPED = 130
"""The exit status of a program that Ctrl-C has ended."""


def main() -> int:
    """Gives the exit status: 1 if xpmfs or the disk itself could not be measured."""
    options = parse()
    if options.only_list:
        print(listing())
        return 0
    # As Ctrl-C: what is mounted is unmounted on the way out.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    raise_limit()
    try:
        machine.check(options.directory, *options.needed(), options.scale.large)
        with Stage(options.directory) as stage:
            report = conduct(stage, options)
    except machine.Unfit as unfit:
        say(str(unfit))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return STOPPED
    print(report.text())
    write(options.json, report.json())
    write(options.markdown, report.markdown())
    if report.stopped:
        return STOPPED
    return 1 if report.results.failed("disk") or report.results.failed("xpmfs") else 0


def raise_limit() -> None:
    """Lets as many files be open as is permitted: passthrough_hp opens every file that the kernel caches."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):
        # Root without CAP_SYS_RESOURCE, as in a container.
        say(f"at most {hard:,} files can be open: passthrough_hp fails if the kernel caches more")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def conduct(stage: Stage, options: Options) -> Report:
    """Does everything on the stage. If it is stopped, what has been measured until then is reported."""
    xpmfs = Xpmfs(stage.install(options.binary), stage.root / "settings.yaml")
    xpmfs.settings.write_text("workspaces: []\n")
    # mergerfs has a program of its own that mounts for ordinary users, which Debian installs without the right to.
    (stage.binaries / "mergerfs-fusermount").symlink_to(shutil.which("fusermount3") or "fusermount3")
    wanted = options.systems.split(",")
    passthrough, left_out = None, []
    if libfuse.PASSTHROUGH_HP in wanted:
        say("building passthrough_hp")
        try:
            passthrough = libfuse.build(stage.directory("libfuse"))
        except libfuse.Unavailable as unavailable:
            left_out.append(f"passthrough_hp is left out, as it could not be built: {unavailable}")
            say(left_out[-1])
            wanted.remove(libfuse.PASSTHROUGH_HP)
    systems = every(xpmfs, stage.install(options.bound), stage.directory("empty"), passthrough)
    if options.before:
        before = Xpmfs(stage.install(options.before, "xpmfs-before"), xpmfs.settings)
        systems["xpmfs-before"] = before.system("xpmfs-before")
        wanted.append("xpmfs-before")
    systems = select(systems, wanted)
    settings = {"rounds": options.rounds, "quick": options.quick, **vars(options.scale)}
    report = Report(machine.describe(stage.root), settings, systems, left_out)
    say(f"on {report.machine['disk']}, in {stage.root}")
    chosen, parts = options.chosen(), options.parts_of_million()
    try:
        trees = plant(stage, {(workload.tree, workload.user) for workload in chosen}, options.scale)
        bench = Bench(stage, stage.install(options.workload), trees, options.scale)
        rounds(bench, chosen, systems, options.rounds, report.results)
        if "memory" in parts:
            million.resident_memory(bench, systems, options.sizes, report.results)
        if "listing" in parts:
            million.first_listing(bench, xpmfs, options.sizes, options.rounds, report.results)
    except KeyboardInterrupt:
        say("stopped")
        report.stopped = True
    report.verdicts = judge(report.results)
    return report


def select(known: dict[str, System], wanted: list[str]) -> list[System]:
    """The file systems of `--systems`, always in the same order."""
    for name in wanted:
        if name not in known:
            raise machine.Unfit(f"there is no file system {name}: choose from {', '.join(known)}")
    return [known[name] for name in known if name in wanted]


def plant(stage: Stage, wanted: set[tuple[str, bool]], scale: Scale) -> dict[tuple[str, bool], Tree]:
    """Makes the trees that the workloads are done on: root's, and those of an ordinary user."""
    trees = {}
    for name, user in sorted(wanted):
        root = stage.directory(f"{name}-user" if user else name)
        if name == "data":
            say(f"making {scale.small_files:,} small files and one of {scale.large >> 20:,} MiB")
            tree = data(root, scale.small_files, scale.large, trees.get((name, False)))
        else:
            say(f"making a tree of {scale.entries:,} entries, locations: {name}")
            tree = workspace(root, scale.jobs, folders=name == "four")
        trees[name, user] = ordinary_user(tree) if user else tree
    return trees


def rounds(bench: Bench, chosen: list[Workload], systems: list[System], count: int, results: Results) -> None:
    """Runs each workload on each file system in turn, again and again, each round with another one first."""
    for number in range(count):
        for workload in chosen:
            users = [system for system in systems if workload.measures(system)]
            first = number % len(users) if users else 0
            for system in users[first:] + users[:first]:
                outcome = once(bench, workload, system, results)
                say(f"round {number + 1} of {count}: {workload.name}: {system.name}: {outcome}")


def once(bench: Bench, workload: Workload, system: System, results: Results) -> str:
    """Takes one sample, or notes why there is none. Gives what came out, in a few words."""
    rows = {name: results.row(name, title, changes=workload.changes) for _, name, title in workload.results}
    before = [row.of(system.name).error for row in rows.values()]
    if all(before):
        return "left out, as it has failed"
    try:
        sample = bench.sample(workload, system)
    except (Failure, OSError) as failure:
        for row in rows.values():
            row.of(system.name).error = str(failure)
        return str(failure)
    for name, (seconds, counted) in sample.items():
        rows[name].add(system.name, seconds, counted, workload.tolerance)
    return ", ".join(f"{seconds:.3f} s" for seconds, _ in sample.values())


def write(path: Optional[Path], content: str) -> None:
    """Writes a file, if one was asked for."""
    if path:
        path.write_text(content)
        say(f"{path} is written")


if __name__ == "__main__":
    sys.exit(main())
