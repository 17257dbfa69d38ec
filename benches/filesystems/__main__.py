"""Measures file systems side by side over the same trees. Run by `scripts/bench`; `docs/benchmark.md` tells how to read it.

    stage.py      a directory of its own, and cleaning up
    mounts.py     what is mounted
    machine.py    what it runs on, and whether that will do
    tree.py       the workspaces that are measured on
    systems.py    the file systems, and how each is set up
    workloads.py  what is measured, and how much of it
    measure.py    one workload on one file system
    million.py    memory, and mounting, of large workspaces
    results.py    samples, medians, ratios
    targets.py    the figures to reach
    report.py     tables, page, JSON

The work itself, and its clock, is the program `examples/workload`.
"""

import argparse
import fnmatch
import resource
import signal
import sys
from pathlib import Path
from typing import Dict, List

import machine
import million
import workloads
from measure import Bench, Failure
from report import Report
from results import Results
from stage import Stage, say
from systems import System, Xpmfs, every
from targets import judge
from tree import Tree, add_large_file, add_small_files, ordinary_user, workspace
from workloads import Scale, Workload

DEFAULT_SYSTEMS = "disk,xpmfs,mergerfs,fuse-overlayfs,bindfs,overlayfs"
ROUNDS = 5
BLOCK = 4096
MILLION = ("memory", "listing")
"""What `--only` calls the parts of `--million`."""


def main() -> int:
    """Gives the exit status: 1 if xpmfs or the disk itself could not be measured."""
    arguments = parse()
    chosen = choose(arguments)
    if arguments.list:
        print("\n".join(f"{workload.name:20} {workload.title}" for workload in workloads.ALL))
        return 0
    scale = workloads.QUICK if arguments.quick else workloads.FULL
    large_sizes = (million.QUICK if arguments.quick else million.FULL) if arguments.million else None
    # What is raised where the benchmark waits; the keeper does the rest.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    # None of them should fail for want of descriptors.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        machine.check(arguments.directory, *needed(chosen, scale, large_sizes), scale.large)
        with Stage(arguments.directory) as stage:
            report = conduct(stage, arguments, chosen, scale, large_sizes)
    except machine.Unfit as unfit:
        say(str(unfit))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    print(report.text())
    write(arguments.json, report.json())
    write(arguments.markdown, report.markdown())
    measured = ("disk", "xpmfs")
    return int(any(samples.error for result in report.results.values() for name, samples in result.systems.items() if name in measured))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures xpmfs beside other file systems over the same trees.")
    add = parser.add_argument
    add("--quick", action="store_true", help="one round with little data, to try it: the figures mean nothing")
    add("--rounds", type=int, metavar="N", help=f"how often each workload is run on each file system [default: {ROUNDS}; quick: 1]")
    add("--only", nargs="+", metavar="WORKLOAD", help="these workloads alone; *, ? and [] as in a shell, and all rows that --list shows")
    add("--systems", default=DEFAULT_SYSTEMS, metavar="A,B", help=f"these file systems alone; also xpmfs-elsewhere [default: {DEFAULT_SYSTEMS}]")
    add("--million", action="store_true", help="also: memory after walking 1,000,000 entries, mounting 1,000,000 jobs")
    add("--json", type=Path, metavar="FILE", help="write everything there, each round's samples included")
    add("--markdown", type=Path, metavar="FILE", help="write a page there")
    add("--directory", type=Path, default=Path("/var/tmp"), metavar="DIRECTORY", help="on the disk to measure on [default: /var/tmp]")
    add("--list", action="store_true", help="show the workloads, and do nothing")
    add("--binary", type=Path, metavar="PATH", help="measure this xpmfs [default: build it]")
    add("--workload", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else ROUNDS)
    if not arguments.list and not (arguments.binary and arguments.workload):
        parser.error("run scripts/bench, which builds what this needs")
    return arguments


def choose(arguments: argparse.Namespace) -> List[Workload]:
    """The workloads of `--only`, by their own names or those of their results."""
    if not arguments.only:
        return list(workloads.ALL)
    chosen = []
    for workload in workloads.ALL:
        names = [workload.name, *(name for _, name, _ in workload.results)]
        if any(fnmatch.filter(names, pattern) for pattern in arguments.only):
            chosen.append(workload)
    known = [name for workload in workloads.ALL for name in (workload.name, *(row[1] for row in workload.results))]
    for pattern in arguments.only:
        if not fnmatch.filter([*known, *MILLION], pattern):
            raise SystemExit(f"bench: there is no workload {pattern}: --list shows all")
    return chosen


def needed(chosen: List[Workload], scale: Scale, sizes) -> tuple:
    """Bytes and inodes that the trees take, generously."""
    size = inodes = 0
    if chosen:
        inodes = 2 * scale.entries + scale.small_files + scale.created
        size = inodes * BLOCK + scale.large + scale.written
    if sizes:
        inodes += sizes.entries + 2 * (sizes.many_jobs + sizes.few_jobs)
        size += sizes.entries * BLOCK + (sizes.many_jobs + sizes.few_jobs) * (BLOCK + 512)
    return int(size * 1.2), int(inodes * 1.1)


def conduct(stage: Stage, arguments: argparse.Namespace, chosen: List[Workload], scale: Scale, sizes) -> Report:
    """Does everything on the stage."""
    settings_file = stage.root / "settings.yaml"
    settings_file.write_text("workspaces: []\n")
    xpmfs = Xpmfs(stage.install(arguments.binary), settings_file)
    known = every(xpmfs, stage.directory("empty"))
    wanted = arguments.systems.split(",")
    for name in wanted:
        if name not in known:
            raise machine.Unfit(f"there is no file system {name}: choose from {', '.join(known)}")
    systems = [known[name] for name in known if name in wanted]
    settings = {"rounds": arguments.rounds, "quick": arguments.quick, **vars(scale)}
    report = Report(machine.describe(stage.root), settings, systems)
    say(f"on {report.machine['disk']}, in {stage.root}")
    bench = Bench(stage, stage.install(arguments.workload), plant(stage, chosen, scale), scale)
    rounds(bench, chosen, systems, arguments.rounds, report.results)
    if sizes and part(arguments, "memory"):
        million.resident_memory(bench, systems, sizes, report.results)
    if sizes and part(arguments, "listing"):
        million.first_listing(bench, xpmfs, sizes, arguments.rounds, report.results)
    report.verdicts = judge(report.results)
    return report


def part(arguments: argparse.Namespace, name: str) -> bool:
    """Whether `--only` leaves this part of `--million` in."""
    return not arguments.only or any(fnmatch.fnmatch(name, pattern) for pattern in arguments.only)


def plant(stage: Stage, chosen: List[Workload], scale: Scale) -> Dict[str, Tree]:
    """Makes the trees that the workloads are done on."""
    names = {workload.tree for workload in chosen}
    trees = {}
    if names & {"one", "user"}:
        say(f"making a tree of {scale.entries:,} entries in one location")
        trees["one"] = workspace(stage.directory("one"), scale.jobs, folders=False)
        add_small_files(trees["one"], scale.small_files)
        add_large_file(trees["one"], scale.large)
    if "user" in names:
        trees["user"] = ordinary_user(stage.directory("user"), trees["one"])
    if "four" in names:
        say(f"making a tree of {scale.entries:,} entries in four locations")
        trees["four"] = workspace(stage.directory("four"), scale.jobs, folders=True)
    return trees


def rounds(bench: Bench, chosen: List[Workload], systems: List[System], count: int, results: Results) -> None:
    """Runs each workload on each file system in turn, again and again, each round with another one first."""
    for number in range(count):
        for workload in chosen:
            taking_part = [system for system in systems if not workload.systems or system.name in workload.systems]
            first = number % len(taking_part) if taking_part else 0
            for system in taking_part[first:] + taking_part[:first]:
                say(f"round {number + 1} of {count}: {workload.name}: {system.name}")
                once(bench, workload, system, results)


def once(bench: Bench, workload: Workload, system: System, results: Results) -> None:
    """One sample, or why there is none."""
    rows = {name: results.row(name, title) for _, name, title in workload.results}
    if all(row.of(system.name).error for row in rows.values()):
        return
    try:
        sample = bench.sample(workload, system)
    except (Failure, OSError) as failure:
        say(f"{system.name}: {failure}")
        for row in rows.values():
            row.of(system.name).error = str(failure)
        return
    for name, (seconds, counted) in sample.items():
        rows[name].add(system.name, seconds, counted, workload.tolerance)


def write(path, content: str) -> None:
    """Writes a file, if one was asked for."""
    if path:
        path.write_text(content)
        say(f"{path} is written")


if __name__ == "__main__":
    sys.exit(main())
