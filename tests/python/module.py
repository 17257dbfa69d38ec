"""Copies a run with the module `xpmfs`, as the quick start of experimaestro's documentation does with its own; compares what both list.

Usage: module.py FROM TO EXPERIMENT RUN
Needs: pip install experimaestro==2.7.0

FROM and TO are ids in the settings of the home directory. Prints one line of JSON.
"""

import json
import sys
from dataclasses import asdict, fields

import experimaestro.copy_experiment as theirs
from experimaestro.settings import get_workspace

import xpmfs as ours


def listed(module, workspace, experiment):
    return {
        "experiments": module.list_experiments(workspace),
        "runs": sorted(module.list_runs(workspace, experiment)),
        "no runs": module.list_runs(workspace, "unknown"),
        "current": module.resolve_current_run(workspace, experiment),
        "no current": module.resolve_current_run(workspace, "unknown"),
    }


def error(*arguments):
    try:
        ours.copy_experiment(*arguments)
    except ours.CommandError as error:
        return str(error)
    return None


def main():
    source, destination, experiment, run = sys.argv[1:]
    src = get_workspace(source, include_remote=True)
    dst = get_workspace(destination, include_remote=True)
    ids = ["20260118_170744", "20260118_170744.1", "20260118-170744", "x", "", "aaaaaaaa_bbbbbb"]
    report = {
        "listed": [
            listed(theirs, src, experiment),
            listed(ours, src, experiment),
            listed(ours, source, experiment),
        ],
        "formatted": [[module.format_run_id(id) for id in ids] for module in (theirs, ours)],
        "fields": [[each.name for each in fields(module.CopyResult)] for module in (theirs, ours)],
        "dry": asdict(ours.copy_experiment(src, dst, experiment, run, dry_run=True)),
        "copied": asdict(ours.copy_experiment(src, dst, experiment, run)),
        "mixed": asdict(ours.copy_experiment(source, dst, experiment, run)),
        "ids": asdict(ours.copy_experiment(source, destination, experiment, run)),
        "errors": [
            error(src, dst, experiment, "20200101_000000"),
            error("unknown", dst, experiment, run),
            error("unknown", destination, experiment, run),
            error(src, src, experiment, run),
        ],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
