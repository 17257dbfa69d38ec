//! Jobs with something of everything in them, that tell by their contents which they are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

pub(crate) const TASK: &str = "my.module.train";

/// What stands in each job's status.
const STATUS: &[u8] = b"{\"state\": \"done\"}";

/// The hash of a job.
pub(crate) fn hash(number: usize) -> String {
    format!("{number:064x}")
}

/// Where a job is, from the top of a workspace or folder.
pub(crate) fn path(number: usize) -> PathBuf {
    Path::new("jobs").join(TASK).join(hash(number))
}

/// What a job's model contains.
pub(crate) fn model(number: usize) -> Vec<u8> {
    format!("model {number}\n").into_bytes().repeat(500)
}

/// Writes a job, all but its marker.
pub(crate) fn write_unfinished(job: &Path, number: usize) {
    fs::create_dir_all(job.join(".experimaestro")).unwrap();
    fs::create_dir_all(job.join("data/empty")).unwrap();
    for (name, contents) in [
        ("params.json", &b"{\"version\": 3, \"objects\": []}"[..]),
        ("train.out", b"step 1\nstep 2\n"),
        ("train.err", b""),
        ("train.py", b"#!/bin/sh\n"),
        ("model.bin", &model(number)),
        ("data/uv.lock", b"version = 1\n"),
        (".experimaestro/status.json", STATUS),
    ] {
        fs::write(job.join(name), contents).unwrap();
    }
    fs::set_permissions(job.join("train.py"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("model.bin", job.join("latest")).unwrap();
}

/// Writes a finished job.
pub(crate) fn write(job: &Path, number: usize) {
    write_unfinished(job, number);
    fs::write(job.join("train.done"), b"").unwrap();
}

/// Writes a finished job in a workspace under another name, and gives it its own in one step.
pub(crate) fn make(workspace: &Path, number: usize) {
    make_and_tell(workspace, number, |_| ());
}

/// As [`make`]; gives what is told of it before it has its name.
pub(crate) fn make_and_tell<T>(
    workspace: &Path,
    number: usize,
    tell: impl FnOnce(&Path) -> T,
) -> T {
    let partials = workspace.join("partials");
    fs::create_dir_all(&partials).unwrap();
    let temporary = partials.join(hash(number));
    write(&temporary, number);
    let told = tell(&temporary);
    let job = workspace.join(path(number));
    fs::create_dir_all(job.parent().unwrap()).unwrap();
    fs::rename(temporary, job).unwrap();
    told
}

/// Looks at everything that is in a job, which must be there, whole.
pub(crate) fn look_at(job: &Path, number: usize) -> Result<(), String> {
    let failed = |what: &str, error: std::io::Error| format!("{}: {what}: {error}", job.display());
    let meta = fs::metadata(job).map_err(|e| failed("stat", e))?;
    if !meta.is_dir() {
        return Err(format!("{} is no directory", job.display()));
    }
    let expected = model(number);
    let file = job.join("model.bin");
    let meta = fs::metadata(&file).map_err(|e| failed("stat of a file", e))?;
    if meta.len() != expected.len() as u64 {
        return Err(format!("{}: {} bytes", file.display(), meta.len()));
    }
    let content = fs::read(&file).map_err(|e| failed("read", e))?;
    if content != expected {
        return Err(format!("{}: something else", file.display()));
    }
    let nested = job.join(".experimaestro/status.json");
    let nested = fs::read(nested).map_err(|e| failed("read in a directory", e))?;
    if nested != STATUS {
        return Err(format!("{}: another status", job.display()));
    }
    let absent = fs::metadata(job.join("train.failed"));
    if absent.is_ok() {
        return Err(format!("{}: it has not failed", job.display()));
    }
    let listed = entries(job).map_err(|e| failed("list", e))?;
    let expected = [
        ".experimaestro",
        "data",
        "latest",
        "model.bin",
        "params.json",
        "train.done",
        "train.err",
        "train.out",
        "train.py",
    ];
    if listed != expected {
        return Err(format!("{}: {listed:?} are in it", job.display()));
    }
    Ok(())
}

/// The names in a directory, sorted.
pub(crate) fn entries(path: &Path) -> std::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name());
    }
    names.sort();
    Ok(names)
}

/// What a copy must have of a job: of each entry its mode, its contents or target, and of files their time.
pub(crate) fn tree(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let mut line = format!("{:o}", meta.mode());
            if meta.is_symlink() {
                line += &format!(" -> {:?}", fs::read_link(&path).unwrap());
            } else if meta.is_dir() {
                pending.push(path.clone());
            } else {
                line += &format!(" {}.{}", meta.mtime(), meta.mtime_nsec());
                line += &format!(" {:?}", String::from_utf8_lossy(&fs::read(&path).unwrap()));
            }
            let relative = path.strip_prefix(top).unwrap();
            // What experimaestro keeps for itself is in no copy.
            if !["train.lock", "train.pid"]
                .iter()
                .any(|own| relative == Path::new(own))
            {
                found.insert(relative.to_owned(), line);
            }
        }
    }
    found
}
