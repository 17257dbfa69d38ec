//! What must hold at the end: the views agree, and each job is whole, once in each place.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Workspace, job, run, xattr};
use crate::jobs::{Jobs, NOTES, Note, files};
use crate::node::Node;

/// Everything in a job.
pub(crate) type Tree = BTreeMap<PathBuf, String>;

/// All jobs of a mount.
pub(crate) type View = BTreeMap<OsString, Tree>;

/// Waits until all nodes have archived everything, and expects the same jobs with the same contents on all of them.
pub(crate) fn views_agree(nodes: &[Node<'_>], jobs: &Jobs) {
    let deadline = Instant::now() + ARCHIVED_WITHIN;
    loop {
        let status: Vec<Value> = nodes.iter().map(Node::status).collect();
        let is_idle = |status: &Value| {
            status["archive"]["queued"] == 0
                && status["recoveries"].as_array().is_some_and(Vec::is_empty)
                && status["archive"]["folders"][0]["under_way"].is_null()
        };
        if status.iter().all(is_idle) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "not all nodes have archived everything: {status:#?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let views = agreed(nodes);
    let view = &views[0];
    for (number, known) in jobs.known.iter().enumerate() {
        let known = known.lock();
        assert!(
            known.deleted.is_none() || !view.contains_key(&OsString::from(job::hash(number))),
            "job {number} was deleted, and is there again"
        );
        if known.completed.is_none() {
            continue;
        }
        let place = nodes[0].top().join(job::path(number));
        for (name, contents) in files(number) {
            assert_eq!(
                fs::read(place.join(name)).unwrap(),
                contents,
                "{name} of job {number}"
            );
        }
        assert_eq!(fs::read(place.join("train.done")).unwrap(), b"");
        let written = fs::read_to_string(place.join(NOTES)).unwrap_or_default();
        expect_notes(&written, &known.notes, number);
        assert!(view.contains_key(&OsString::from(job::hash(number))));
    }
}

/// How long it may take until everything is archived.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(90);

/// How long it may take until the views agree: names are cached for a second, and jobs that were put back are archived again.
const AGREED_WITHIN: Duration = Duration::from_secs(60);

/// Waits until the views agree, and returns them.
fn agreed(nodes: &[Node<'_>]) -> Vec<View> {
    let deadline = Instant::now() + AGREED_WITHIN;
    loop {
        let views: Vec<io::Result<View>> = nodes.iter().map(|node| view(&node.top())).collect();
        if views
            .windows(2)
            .all(|pair| matches!((&pair[0], &pair[1]), (Ok(one), Ok(other)) if one == other))
        {
            return views.into_iter().map(Result::unwrap).collect();
        }
        // A walk may meet a job that is being moved.
        if Instant::now() >= deadline {
            report(nodes, &views);
            panic!("the views do not agree");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Prints what the views lack or have otherwise than the first one, and what the logs say about these jobs.
fn report(nodes: &[Node<'_>], views: &[io::Result<View>]) {
    let mut jobs = BTreeSet::new();
    let mut first: Option<(usize, &View)> = None;
    for (number, view) in views.iter().enumerate() {
        let (base, other) = match (view, first) {
            (Err(error), _) => {
                eprintln!("node {number}: {error}");
                let job = error.to_string();
                jobs.extend(
                    job.split('/')
                        .find(|part| part.len() == 64)
                        .map(OsString::from),
                );
                continue;
            }
            (Ok(view), None) => {
                first = Some((number, view));
                continue;
            }
            (Ok(view), Some(first)) => (first, view),
        };
        for job in base.1.keys().chain(other.keys()) {
            let [one, two] = [base.1, other].map(|view| view.get(job));
            if one != two && jobs.insert(job.clone()) {
                eprintln!(
                    "{}: node {} has {one:#?}, node {number} has {two:#?}",
                    job.display(),
                    base.0
                );
            }
        }
    }
    for job in &jobs {
        for node in nodes {
            let path = node.top().join("jobs").join(job::TASK).join(job);
            let location = xattr(&path, "user.xpmfs.location");
            eprintln!("{}: {location:?}", path.display());
            for name in job::entries(&path).unwrap_or_default() {
                let meta = fs::symlink_metadata(path.join(&name));
                eprintln!(
                    "  {} {:?}",
                    name.display(),
                    meta.map(|meta| (meta.ino(), meta.mtime_nsec()))
                );
            }
            let log = node.log();
            let about = |line: &&str| {
                line.contains("signal")
                    || line.contains("took over")
                    || line.contains(job.to_str().unwrap())
            };
            let lines: Vec<&str> = log.lines().filter(about).collect();
            eprintln!("{}", lines.join("\n"));
        }
    }
}

/// Expects each note that a program has written, once and in order; one that was broken off, at most once.
fn expect_notes(written: &str, notes: &[Note], number: usize) {
    let mut lines = written.split_inclusive('\n').peekable();
    for note in notes {
        let is_next = lines.next_if(|line| *line == note.line).is_some();
        assert!(
            is_next || note.written.is_none(),
            "job {number} lacks {:?}; it has\n{written}of\n{notes:#?}",
            note.line
        );
    }
    assert_eq!(
        lines.next(),
        None,
        "job {number} has\n{written}of\n{notes:#?}"
    );
}

/// All jobs at the top of a mount.
pub(crate) fn view(top: &Path) -> io::Result<View> {
    let task = top.join("jobs").join(job::TASK);
    let mut names = job::entries(&task)?;
    // Copies that are about to be swept.
    names.retain(|name| !name.to_string_lossy().starts_with('.'));
    let jobs = names.into_iter().map(|name| {
        let tree = tree(&task.join(&name))?;
        Ok((name, tree))
    });
    jobs.collect()
}

/// Everything in a job but its lock.
fn tree(job: &Path) -> io::Result<Tree> {
    let at = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let mut found = Tree::new();
    let mut pending = vec![job.to_owned()];
    while let Some(directory) = pending.pop() {
        for name in job::entries(&directory).map_err(|error| at(&directory, error))? {
            let path = directory.join(&name);
            let meta = fs::symlink_metadata(&path).map_err(|error| at(&path, error))?;
            let contents = match meta.file_type() {
                kind if kind.is_dir() => {
                    pending.push(path.clone());
                    String::new()
                }
                kind if kind.is_symlink() => {
                    format!(
                        "{:?}",
                        fs::read_link(&path).map_err(|error| at(&path, error))?
                    )
                }
                _ => format!(
                    "{}.{} {}",
                    meta.mtime(),
                    meta.mtime_nsec(),
                    shown(&fs::read(&path).map_err(|error| at(&path, error))?)
                ),
            };
            if name != "train.lock" {
                let path = path.strip_prefix(job).unwrap_or(&path).to_owned();
                found.insert(path, format!("{:o} {contents}", meta.mode()));
            }
        }
    }
    Ok(found)
}

/// The contents of a file, or what stands for long ones.
fn shown(contents: &[u8]) -> String {
    match contents.len() {
        0..2000 => String::from_utf8_lossy(contents).into_owned(),
        length => format!("{length} bytes, {}", blake3::hash(contents)),
    }
}

pub(crate) fn unmount(nodes: Vec<Node<'_>>) {
    for node in &nodes {
        node.unmount();
    }
}

/// What lies on the disks.
pub(crate) struct Places<'a> {
    workspace: &'a Workspace,
    mode: &'static str,
}

impl<'a> Places<'a> {
    pub(crate) fn of(workspace: &'a Workspace, mode: &'static str) -> Places<'a> {
        Places { workspace, mode }
    }

    /// Expects each job that was run once in the folder, whole, and in the primary as it should be; and nothing that is left
    /// of copies.
    pub(crate) fn expect_each_job_once(&self, jobs: &Jobs) {
        let folder = self.workspace.folder(self.mode);
        let primary = self.workspace.primary();
        let completed = jobs
            .known
            .iter()
            .enumerate()
            .filter(|(_, known)| known.lock().completed.is_some());
        let numbers: Vec<usize> = completed.map(|(number, _)| number).collect();
        assert!(!numbers.is_empty());
        let [copies, own] =
            [&folder, &primary].map(|top| job::entries(&top.join("jobs").join(job::TASK)).unwrap());
        let mut expected: Vec<OsString> = numbers
            .iter()
            .map(|number| job::hash(*number).into())
            .collect();
        expected.sort();
        let done: Vec<OsString> = copies
            .iter()
            .filter(|name| !expected.contains(name))
            .cloned()
            .collect();
        // A program that was broken off may have finished a job.
        for name in done {
            assert!(
                own.contains(&name) || !name.to_string_lossy().starts_with('.'),
                "{name:?} is left"
            );
        }
        for name in &expected {
            assert!(copies.contains(name), "{name:?} is not in the folder");
        }
        for name in copies.iter().chain(&own) {
            assert!(!name.to_string_lossy().starts_with('.'), "{name:?} is left");
        }
        for number in numbers {
            let (copy, own) = (
                folder.join(job::path(number)),
                primary.join(job::path(number)),
            );
            let copied = job::tree(&copy);
            match self.mode {
                "move" => assert_eq!(fs::read_link(&own).unwrap(), copy, "job {number}"),
                _ if own.exists() => assert_eq!(job::tree(&own), copied, "job {number}"),
                // Released.
                _ => {}
            }
        }
        let mut command = self.workspace.xpmfs();
        let printed = run(command.args(["--json", "jobs", "verify", "-w", "test", "--all"]));
        let report: Value = serde_json::from_str(&printed).unwrap();
        for copy in report.as_array().unwrap() {
            assert_eq!(copy["result"], "ok", "{copy}");
        }
    }
}
