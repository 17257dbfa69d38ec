//! The plan of `tests/python/plan.py`, run by the real experimaestro in a workspace or through a mount
//! of it, with a deadline, and with whatever experimaestro says of errors.

pub(crate) mod reach;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Workspace;
use super::python;
use reach::Interpreter;

/// How long a plan may take. It takes some seconds, on a machine that has nothing else to do.
const DEADLINE: Duration = Duration::from_secs(240);

/// What experimaestro warns of whenever a job of a plan is new.
const USUAL_WARNING: &str = "In a future version, directory will be cleaned up";

/// The plan, run by the user who does things in a workspace.
pub(crate) struct Plan<'a> {
    workspace: &'a Workspace,
    python: Interpreter,
    /// A copy of the plan: beside it in the project's directory, experimaestro would look into git.
    script: PathBuf,
}

/// A job of the plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Job {
    pub(crate) task: String,
    pub(crate) hash: String,
}

/// A run of the plan that goes on. It is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    /// A file name for each of what it prints, complains, executes, and waits for.
    files: PathBuf,
}

/// What a run of the plan did.
pub(crate) struct Ran {
    /// Its number, as experimaestro counts them.
    pub(crate) run: String,
    /// All jobs of the plan, in the order of submission; all are done.
    pub(crate) jobs: Vec<Job>,
    /// Those that have been executed, in order.
    pub(crate) executed: Vec<Job>,
}

impl Job {
    /// Its name in experimaestro's file names.
    pub(crate) fn name(&self) -> &str {
        self.task.rsplit('.').next().unwrap()
    }

    /// Its directory, from the top of a workspace or folder.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("jobs").join(&self.task).join(&self.hash)
    }

    /// One of its files, from the top of a workspace or folder, by the ending that follows its name.
    pub(crate) fn file(&self, ending: &str) -> PathBuf {
        self.path().join(format!("{}.{ending}", self.name()))
    }

    fn parse(line: &str) -> Job {
        let (task, hash) = line.split_once('/').expect("task/hash");
        Job {
            task: task.to_owned(),
            hash: hash.to_owned(),
        }
    }
}

impl<'a> Plan<'a> {
    /// The plan in a workspace; `None` if there is no experimaestro and the test may be skipped.
    pub(crate) fn of(workspace: &'a Workspace) -> Option<Plan<'a>> {
        let python = Interpreter::for_user_of(workspace, python::interpreter()?)?;
        let script = workspace.top().join("plan/plan.py");
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/plan.py");
        fs::create_dir(script.parent().unwrap()).unwrap();
        fs::copy(original, &script).unwrap();
        workspace.give(script.parent().unwrap());
        Some(Plan {
            workspace,
            python,
            script,
        })
    }

    /// Runs the plan to its end in the workspace that is seen at `at`. It must succeed.
    pub(crate) fn run(&self, at: &Path, arguments: &[&str]) -> Ran {
        let running = self.start(at, arguments);
        running.open_gate();
        running.finish()
    }

    /// Runs experimaestro's own command, whose last argument is a path; returns what it prints.
    pub(crate) fn experimaestro(&self, arguments: &[&str], at: &Path) -> String {
        self.experimaestro_in(&[arguments, &[at.to_str().unwrap()]].concat())
    }

    /// Runs experimaestro's own command; returns what it prints.
    pub(crate) fn experimaestro_in(&self, arguments: &[&str]) -> String {
        let mut command = self.python.command(self.workspace);
        command.args(["-m", "experimaestro"]).args(arguments);
        super::run(&mut command)
    }

    /// Starts the plan in the workspace that is seen at `at`. Its jobs wait for the gate.
    pub(crate) fn start(&self, at: &Path, arguments: &[&str]) -> Running {
        let prefix = |n: u32| self.workspace.top().join(format!("run-{n}"));
        let files = (0..).map(prefix).find(|files| !files.exists()).unwrap();
        fs::create_dir(&files).unwrap();
        self.workspace.give(&files);
        let output = |name| File::create(files.join(name)).unwrap();
        let mut command = self.python.command(self.workspace);
        command
            .arg(&self.script)
            .arg(at)
            .arg("--json")
            .args(arguments)
            .env("XPMFS_TEST_EXECUTIONS", files.join("executions"))
            .env("XPMFS_TEST_GATE", files.join("gate"))
            .stdin(std::process::Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .process_group(0);
        let child = command.spawn().unwrap();
        Running { child, files }
    }
}

impl Running {
    /// Lets the jobs go on, those to come too.
    pub(crate) fn open_gate(&self) {
        File::create(self.files.join("gate")).unwrap();
    }

    /// The jobs that have begun to run.
    pub(crate) fn executed(&self) -> Vec<Job> {
        self.read("executions").lines().map(Job::parse).collect()
    }

    /// Waits until a job runs, and gives the first that does.
    pub(crate) fn wait_for_a_job(&mut self) -> Job {
        self.wait_until("a job runs", |plan| plan.read("executions").ends_with('\n'));
        self.executed().remove(0)
    }

    /// Waits for something that comes to be while the plan runs.
    pub(crate) fn wait_until(&mut self, what: &str, condition: impl Fn(&Running) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            let ended = self.child.try_wait().unwrap();
            let fails = ended.is_some() || Instant::now() > deadline;
            assert!(!fails, "not so, that {what}: {ended:?}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How often experimaestro has said something.
    pub(crate) fn says(&self, what: &str) -> usize {
        self.read("stderr").matches(what).count()
    }

    /// Waits until the plan is done, which must be without any error.
    pub(crate) fn finish(mut self) -> Ran {
        let status = self.wait();
        assert!(status.success(), "the plan: {status}\n{}", self.said());
        assert_no_complaint(&self.read("stderr"));
        self.report("done")
    }

    /// Waits until the plan is done, whatever experimaestro says of it.
    pub(crate) fn finish_complaining(mut self) -> Ran {
        let status = self.wait();
        assert!(status.success(), "the plan: {status}\n{}", self.said());
        self.report("done")
    }

    /// Waits until a plan is done whose last job fails.
    pub(crate) fn finish_failing(mut self) -> Ran {
        let status = self.wait();
        assert!(status.success(), "the plan: {status}\n{}", self.said());
        self.report("error")
    }

    /// What the plan did, whose last job ended in this state.
    fn report(&self, last: &str) -> Ran {
        let printed = self.read("stdout");
        let report: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        let reported = report["jobs"].as_array().unwrap();
        let jobs = reported.iter().enumerate().map(|(index, job)| {
            let is_last = index + 1 == reported.len();
            assert_eq!(job["state"], if is_last { last } else { "done" }, "{job}");
            Job {
                task: job["task_id"].as_str().unwrap().to_owned(),
                hash: job["hash"].as_str().unwrap().to_owned(),
            }
        });
        Ran {
            run: report["run"].as_str().unwrap().to_owned(),
            jobs: jobs.collect(),
            executed: self.executed(),
        }
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "no end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn said(&self) -> String {
        self.read("stdout") + &self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.files.join(name)).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // Its jobs are in sessions of their own: they go on to their end.
        let _ = File::create(self.files.join("gate"));
        if let Some(group) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Asserts that experimaestro has said nothing but what it always says.
pub(crate) fn assert_no_complaint(stderr: &str) {
    let complaints: Vec<&str> = without_late_errors(stderr)
        .into_iter()
        .filter(|line| !line.starts_with("INFO:") && !line.contains(USUAL_WARNING))
        .collect();
    assert!(complaints.is_empty(), "experimaestro complains:\n{stderr}");
}

/// How an error ends of a scheduler that gives a lock back when Python has begun to end, as on a busy machine. All jobs are
/// done by then.
const TOO_LATE: &str = "RuntimeError: cannot schedule new futures after";

/// What was said, without the errors, from their first line to their last, that end in [`TOO_LATE`].
fn without_late_errors(stderr: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = Vec::new();
    let mut error = None;
    for line in stderr.lines() {
        if line.starts_with("ERROR:") {
            error = Some(lines.len());
        } else if line.starts_with("INFO:") {
            error = None;
        }
        lines.push(line);
        if line.starts_with(TOO_LATE)
            && let Some(begin) = error.take()
        {
            lines.truncate(begin);
        }
    }
    lines
}

/// Asserts that a job says of itself, in its output, that it ran in the workspace that is seen at `at`,
/// on this device, and that its event files were one file with two names.
pub(crate) fn assert_ran_at(at: &Path, device: u64, job: &Job, output: &Path) {
    let printed = fs::read_to_string(output).unwrap();
    let witness: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    let witness = &witness["witness"];
    let path = |path: PathBuf| Value::from(at.join(path).to_str().unwrap());
    assert_eq!(witness["directory"], path(job.path()));
    assert_eq!(witness["script"], path(job.file("py")));
    assert_eq!(witness["device"], device, "the script is not the mount's");
    let events: Vec<&Value> = witness["events"].as_object().unwrap().values().collect();
    assert_eq!(events.len(), 2, "{witness}");
    assert_eq!(events[0], events[1], "two files, not one: {witness}");
    assert_eq!(events[0][1], 2, "the number of links: {witness}");
}
