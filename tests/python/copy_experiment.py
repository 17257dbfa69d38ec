"""Copies a run by experimaestro's own function, and prints the result, or its exception, as one line of JSON.

Usage: copy_experiment.py SETTINGS FROM TO EXPERIMENT RUN
Needs: pip install experimaestro==2.7.0

SETTINGS is a settings file that is JSON.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from experimaestro.copy_experiment import copy_experiment
from experimaestro.settings import SSHSettings, WorkspaceSettings


def workspace(file, id):
    found = {each["id"]: each for each in json.loads(Path(file).read_text())["workspaces"]}
    ssh = found[id].get("ssh")
    ssh = SSHSettings(**ssh) if ssh else None
    return WorkspaceSettings(id=id, path=Path(found[id]["path"]), ssh=ssh)


def main():
    file, source, destination, experiment, run = sys.argv[1:]
    source, destination = workspace(file, source), workspace(file, destination)
    try:
        report = asdict(copy_experiment(source, destination, experiment, run))
    except Exception as error:
        report = {"exception": f"{type(error).__name__}: {error}"}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
