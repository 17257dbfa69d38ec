"""A small real plan for experimaestro: one preparation, and N trainings that depend on it.

Usage: plan.py WORKSPACE [N] [--id ID] [--experiment ID] [--failing] [--transient] [--partials] [--service]
               [--executions FILE] [--json]
Needs: pip install experimaestro==2.7.0

The same arguments always make the same jobs, with the same contents. Prints "states: done done …" in the
order of submission, and with --json a report of the run in one line after it. Exits with 0 if every job is
done (but for the one that fails with --failing).

To tell a job that ran from one that was found done, every execution appends "task_id/hash" as a line to FILE
(or to the file that XPMFS_TEST_EXECUTIONS names), which should lie outside the workspace. It also prints a
"witness" of what it sees of itself as a line of JSON, which is the first of the job's output. If
XPMFS_TEST_GATE names a file, each job waits after that until there is such a file; but with --transient, the preparation
does not, and is a transient job that experimaestro removes at the end.
"""

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path

from experimaestro import Meta, Param, PathGenerator, Task, experiment, field, param_group, partial
from experimaestro.scheduler.services import WebService
from experimaestro.scheduler.transient import TransientMode
from experimaestro.settings import find_workspace

EXECUTIONS = "XPMFS_TEST_EXECUTIONS"
GATE = "XPMFS_TEST_GATE"
TRANSIENT = "XPMFS_TEST_TRANSIENT"


def begin_execution():
    """What each job does first, in its own process and directory."""
    print(json.dumps({"witness": witness()}), flush=True)
    count_execution()
    wait_at_gate()


def witness():
    """From where this job runs, and what its event files are."""
    job, script = Path.cwd(), Path(sys.argv[0])
    workspace = job.parent.parent.parent
    events = [*workspace.glob(f".events/jobs/*{job.name}*"), *job.glob(".experimaestro/events/*")]
    return {
        "directory": str(job),
        "script": str(script),
        "device": script.stat().st_dev,
        "events": {str(e.relative_to(workspace)): [e.stat().st_ino, e.stat().st_nlink] for e in events},
    }


def wait_at_gate():
    """Waits until the gate is there; gives up after two minutes, or when even its directory is gone."""
    gate = os.environ.get(GATE)
    deadline = time.monotonic() + 120
    while gate and not os.path.exists(gate):
        if time.monotonic() > deadline or not os.path.isdir(os.path.dirname(gate)):
            raise TimeoutError(f"{gate} does not open")
        time.sleep(0.01)


def count_execution():
    """Appends this job to the file of executions."""
    if path := os.environ.get(EXECUTIONS):
        job = Path.cwd()
        line = f"{job.parent.name}/{job.name}\n".encode()
        # One write to a file opened for appending: jobs that run at once do not mix their lines.
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)


class Prepare(Task):
    """Writes a text file of n lines."""

    n: Param[int]
    out: Meta[Path] = field(default_factory=PathGenerator("data.txt"))

    def execute(self):
        if os.environ.get(TRANSIENT):
            count_execution()
        else:
            begin_execution()
        self.out.write_text("\n".join(str(i) for i in range(self.n)))


class Train(Task):
    """Reads the prepared file and writes a 'checkpoint' of a thousand bytes a line."""

    prepare: Param[Prepare]
    lr: Param[float]
    model: Meta[Path] = field(default_factory=PathGenerator("model.bin"))

    def execute(self):
        begin_execution()
        lines = len(self.prepare.out.read_text().splitlines())
        self.model.write_bytes(bytes(1000) * lines)
        print(f"trained on {lines} lines")


LENGTH = param_group("length")


class Learn(Task):
    """Goes on from a checkpoint that it shares with the jobs that differ from it in their steps only."""

    checkpoints = partial(exclude_groups=[LENGTH])
    prepare: Param[Prepare]
    lr: Param[float]
    steps: Param[int] = field(groups=[LENGTH])
    checkpoint: Meta[Path] = field(default_factory=PathGenerator("model.pt", partial=checkpoints))
    out: Meta[Path] = field(default_factory=PathGenerator("steps.txt"))

    def execute(self):
        begin_execution()
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with self.checkpoint.open("a") as checkpoint:
            checkpoint.write(f"{self.lr} {self.steps}\n")
        self.out.write_text(str(self.steps))


class Fail(Task):
    """Fails, after having written something."""

    prepare: Param[Prepare]
    out: Meta[Path] = field(default_factory=PathGenerator("half.txt"))

    def execute(self):
        begin_execution()
        self.out.write_text("half")
        raise RuntimeError("this task always fails")


class Board(WebService):
    """A service that says where it is, and serves nothing."""

    id = "board"

    def description(self):
        return "losses of all jobs"

    def state_dict(self):
        return {}

    def _serve(self, running):
        self.url = "http://127.0.0.1:6006/"
        running.set()
        while not self.should_stop():
            time.sleep(0.1)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace", type=Path)
    parser.add_argument("count", type=int, nargs="?", default=3)
    parser.add_argument("--id", help="take the workspace with this id in the settings, with its folders")
    parser.add_argument("--experiment", default="demo")
    parser.add_argument("--failing", action="store_true", help="one more job, which fails")
    parser.add_argument("--transient", action="store_true", help="the preparation is removed at the end")
    parser.add_argument("--partials", action="store_true", help="three jobs with checkpoints: two share one, the third is opted out")
    parser.add_argument("--service", action="store_true", help="a service runs as long as the plan")
    parser.add_argument("--executions", type=Path, help="file to which each execution appends a line")
    parser.add_argument("--json", action="store_true", help="report the run in one line of JSON")
    return parser.parse_intermixed_args()


def submit(count, failing, transient, partials):
    """Submits the plan; returns each task with the tags that are expected for it."""
    # A float that JSON does not have, a string that is not ASCII, and the other scalars.
    prepare = Prepare.C(n=100).tag("n", 100).tag("limit", float("inf"))
    mode = TransientMode.REMOVE if transient else TransientMode.NONE
    submitted = [(prepare.submit(transient=mode), {"n": 100, "limit": "Infinity"})]
    for i in range(count):
        train = Train.C(prepare=prepare, lr=0.1 * i).tag("lr", 0.1 * i).tag("näme", "é x")
        tags = {"n": 100, "limit": "Infinity", "lr": 0.1 * i, "näme": "é x"}
        submitted.append((train.tag("even", i % 2 == 0).submit(), {**tags, "even": i % 2 == 0}))
    if partials:
        for lr, steps, tags in [(0.5, 1, {}), (0.5, 2, {}), (0.9, 1, {"backup": False})]:
            learn = Learn.C(prepare=prepare, lr=lr, steps=steps)
            for name, value in tags.items():
                learn = learn.tag(name, value)
            submitted.append((learn.submit(), {"n": 100, "limit": "Infinity", **tags}))
    if failing:
        submitted.append((Fail.C(prepare=prepare).submit(), {"n": 100, "limit": "Infinity"}))
    return submitted


def ended(job):
    """The state in which a job ended. What its events tell (`state`) comes late, or when the plan is over, of a job that
    another plan has run; what the scheduler has read of its markers is there when it goes on."""
    return job.state if job.state.finished() else job.scheduler_state


def main():
    args = arguments()
    logging.basicConfig(level=logging.INFO)
    executions = args.executions or os.environ.get(EXECUTIONS)
    try:
        workspace = find_workspace(workspace=args.id) if args.id else args.workspace
        with experiment(workspace, args.experiment, port=None, no_environmental_impact=True) as xp:
            xp.setenv("PYTHONPATH", str(Path(__file__).resolve().parent))
            # Jobs import this file: nothing is to be left beside it.
            xp.setenv("PYTHONDONTWRITEBYTECODE", "1")
            if args.transient:
                xp.setenv(TRANSIENT, "1")
            if executions:
                xp.setenv(EXECUTIONS, str(Path(executions).resolve()))
            if gate := os.environ.get(GATE):
                xp.setenv(GATE, gate)
            if args.service:
                xp.add_service(Board()).get_url()
            submitted = submit(args.count, args.failing, args.transient, args.partials)
            xp.wait()
    except Exception as error:
        # experimaestro says in this way that a job has failed.
        if not args.failing or type(error).__name__ != "FailedExperiment":
            raise

    jobs = [
        {
            "task_id": task.__xpm__.job.task_id,
            "hash": task.__xpm__.job.identifier,
            "state": ended(task.__xpm__.job).name,
            "tags": tags,
        }
        for task, tags in submitted
    ]
    states = [job["state"] for job in jobs]
    print("states:", " ".join(states))
    if args.json:
        print(json.dumps({"experiment": args.experiment, "run": xp.run_id, "jobs": jobs}))
    expected = ["done"] * (args.count + 1 + 3 * args.partials) + ["error"] * args.failing
    sys.exit(states != expected)


if __name__ == "__main__":
    main()
