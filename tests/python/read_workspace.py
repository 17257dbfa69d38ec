"""What experimaestro itself sees in a workspace, as one line of JSON.

Usage: read_workspace.py WORKSPACE
Needs: pip install experimaestro==2.7.0

It goes through `WorkspaceStateProvider`, of which experimaestro's own command line and screens are made.
Reads only, except that experimaestro takes its lock files beside each `status.json`.
"""

import json
import math
import sys
from pathlib import Path

from experimaestro.scheduler.workspace_state_provider import WorkspaceStateProvider


def scalar(value):
    """JSON has no infinities: their names stand for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}[str(value)]
    return value


def describe_job(job, info):
    return {
        "task_id": job.task_id,
        "hash": job.identifier,
        "name": job.scriptname,
        "state": job.state.name,
        "started": job.starttime and job.starttime.timestamp(),
        "submitted": info and info.timestamp,
        "tags": {k: scalar(v) for k, v in info.tags.items()} if info else {},
    }


def describe_run(provider, experiment_id, run):
    infos = run.job_infos
    jobs = provider.get_jobs(experiment_id=experiment_id, run_id=run.run_id)
    return {
        "id": run.run_id,
        "status": run.status.value,
        "started": run.started_at and run.started_at.timestamp(),
        "hostname": run.hostname,
        "jobs": [describe_job(job, infos.get(job.identifier)) for job in jobs],
    }


def main():
    provider = WorkspaceStateProvider.get_instance(Path(sys.argv[1]), no_cleanup=True)
    experiments = []
    for experiment in provider.get_experiments():
        experiment_id = experiment.experiment_id
        runs = provider.get_experiment_runs(experiment_id)
        experiments.append(
            {
                "id": experiment_id,
                "current": provider.get_current_run(experiment_id),
                "runs": [describe_run(provider, experiment_id, run) for run in runs],
            }
        )
    print(json.dumps({"experiments": experiments}))


if __name__ == "__main__":
    main()
