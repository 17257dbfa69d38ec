//! What must hold at the end: the views agree, and each job is whole, once in each place.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Workspace, eventually, job, run};
use crate::node::Node;
use crate::programs::{Jobs, NOTES, files};

/// Everything in a job.
type Tree = BTreeMap<PathBuf, String>;

/// Waits until all nodes have archived everything, and expects the same jobs with the same contents on all of them.
pub(crate) fn views_agree(nodes: &[Node<'_>], jobs: &Jobs) {
    eventually("all nodes have archived everything", || {
        nodes.iter().all(|node| {
            let status = node.status();
            status["archive"]["queued"] == 0
                && status["recoveries"].as_array().is_some_and(Vec::is_empty)
                && status["archive"]["folders"][0]["under_way"].is_null()
        })
    });
    let mut views: Vec<BTreeMap<OsString, Tree>> = Vec::new();
    // Within the time that names are cached for, and once more while a job is archived.
    eventually("the views agree", || {
        // A walk may meet a job that is being moved.
        views = nodes
            .iter()
            .filter_map(|node| view(&node.top()).ok())
            .collect();
        views.len() == nodes.len() && views.windows(2).all(|pair| pair[0] == pair[1])
    });
    let view = &views[0];
    for (number, known) in jobs.known.iter().enumerate() {
        let known = known.lock();
        if !known.completed {
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

/// Expects each note that a program has written, once and in order; one that was broken off, at most once.
fn expect_notes(written: &str, notes: &[crate::programs::Note], number: usize) {
    let mut lines = written.split_inclusive('\n').peekable();
    for note in notes {
        let is_next = lines.next_if(|line| *line == note.line).is_some();
        assert!(
            is_next || !note.certain,
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
fn view(top: &Path) -> io::Result<BTreeMap<OsString, Tree>> {
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
    let mut found = Tree::new();
    let mut pending = vec![job.to_owned()];
    while let Some(directory) = pending.pop() {
        for name in job::entries(&directory)? {
            let path = directory.join(&name);
            let meta = fs::symlink_metadata(&path)?;
            let contents = match meta.file_type() {
                kind if kind.is_dir() => {
                    pending.push(path.clone());
                    String::new()
                }
                kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path)?),
                _ => format!(
                    "{}.{} {:?}",
                    meta.mtime(),
                    meta.mtime_nsec(),
                    fs::read(&path)?
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
            .filter(|(_, known)| known.lock().completed);
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
