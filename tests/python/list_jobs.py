"""What experimaestro's `jobs list` makes of a workspace, as one line of JSON.

Usage: list_jobs.py WORKSPACE QUERIES
Needs: pip install experimaestro==2.7.0

QUERIES is a file with `{"experiments": [...], "filters": [...], "counts": [...]}`. The filters are applied to the first experiment, in two
ways: by experimaestro as it is, and with the strings of its filters repaired: they are objects there that equal nothing, so that `in` never
holds, and `~` fails. A filter that fails has the name of its exception.
"""

import contextlib
import io
import json
import sys
import types
from pathlib import Path

from experimaestro.cli import filter as filters
from experimaestro.cli.jobs import process
from experimaestro.scheduler.workspace_state_provider import WorkspaceStateProvider


def name(job):
    return f"{job.task_id}/{job.identifier}"


def passing(jobs, text, context):
    try:
        passes = filters.createFilter(text, context)
        return [name(job) for job in jobs if passes(job)]
    except Exception as error:
        return type(error).__name__


def repair():
    def init_in(self, tokens):
        self.var, *texts = tokens
        self.values = {text.value for text in texts}

    def init_regex(self, tokens):
        self.var, text = tokens
        self.regex = filters.re.compile(text.value)

    filters.BaseInExpr.__init__ = init_in
    filters.RegexExpr.__init__ = init_regex


def main():
    queries = json.loads(Path(sys.argv[2]).read_text())
    # The watcher of events knows a job only by digits of its task's hash, and may be first: the job then has these in place of its task.
    WorkspaceStateProvider._start_watcher = lambda self: None
    provider = WorkspaceStateProvider.get_instance(Path(sys.argv[1]), no_cleanup=True)
    experiments = {}
    for experiment in queries["experiments"]:
        infos = provider.get_experiment_job_info(experiment_id=experiment)
        tags = provider.get_tags_map(experiment_id=experiment)
        experiments[experiment] = [
            {
                "job": name(job),
                "state": job.state.name,
                "tags": tags.get(job.identifier, {}),
                "submitted": getattr(infos.get(job.identifier), "timestamp", None),
                "reason": job.state.failure_reason and job.state.failure_reason.name,
            }
            for job in provider.get_jobs(experiment_id=experiment)
        ]
    listed = {
        experiment.experiment_id: {
            "current": experiment.run_id or None,
            "done": experiment.finished_jobs,
            "failed": experiment.failed_jobs,
            "jobs": experiment.total_jobs,
            "hostname": experiment.hostname,
        }
        for experiment in provider.get_experiments()
    }
    first = queries["experiments"][0]
    jobs = provider.get_jobs(experiment_id=first)
    context = filters.FilterContext(tags_map=provider.get_tags_map(experiment_id=first))
    real = {text: passing(jobs, text, context) for text in queries["filters"]}
    printed = {}
    for count in queries["counts"]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            workspace = types.SimpleNamespace(path=Path(sys.argv[1]))
            process(workspace, experiment=first, count=count, fullpath=True)
        printed[str(count)] = [line for line in out.getvalue().splitlines() if line]
    everything = sorted({name(job) for job in provider.get_all_jobs()})
    repair()
    repaired = {text: passing(jobs, text, context) for text in queries["filters"]}
    print(
        json.dumps(
            {
                "experiments": experiments,
                "listed": listed,
                "real": real,
                "repaired": repaired,
                "printed": printed,
                "all": everything,
            }
        )
    )


if __name__ == "__main__":
    main()
