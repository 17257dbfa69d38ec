//! What programs do on each node: run jobs that are not done, change jobs that are, read, release, delete and remove them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use crate::common::{job, xattr};
use crate::jobs::{Jobs, Known, NOTES, Note, files};
use crate::node::{Node, text};

/// Random numbers, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seed() -> u64 {
        match std::env::var("XPMFS_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => jiff::Timestamp::now().as_microsecond() as u64,
        }
    }

    pub(crate) fn new(seed: u64, stream: usize) -> Random {
        let mut random =
            Random((seed ^ (stream as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        random.below(2);
        random
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// How soon all nodes see what one did: names are cached for a second, and a directory that was written to while its job was moved is put
/// back 2.5 s later.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// How long a job may resist its removal, also while a daemon that was killed is replaced.
const REMOVED_WITHIN: Duration = Duration::from_secs(30);

/// Does things on a node until all is over.
pub(crate) fn run(
    nodes: &[Node<'_>],
    own: usize,
    jobs: &Jobs,
    mut random: Random,
    over: &AtomicBool,
) {
    let node = &nodes[own];
    let mut step = 0;
    while !over.load(Ordering::Acquire) {
        step += 1;
        let Some(generation) = node.generation() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let number = random.below(jobs.known.len() as u64) as usize;
        let program = Program {
            nodes,
            own,
            jobs,
            generation,
            number,
        };
        let (what, done) = match random.below(22) {
            0..10 => ("run", program.using(Program::run)),
            10..14 => ("change", program.using(|it| it.change(step))),
            14..18 => ("read", program.using(Program::read)),
            18..20 => ("release", program.release()),
            20 => ("deletion", program.delete()),
            _ => ("removal", program.remove()),
        };
        if let Err(error) = done {
            let is_stale = error.to_string().contains("Stale file handle");
            if is_stale {
                // Another node has moved the job twice meanwhile: rare, as on NFS.
                jobs.stale.fetch_add(1, Ordering::Relaxed);
            } else if node.generation() == Some(generation) {
                let place = node.top();
                let text = format!("{what} of job {number} at {}: {error}", place.display());
                jobs.fail(number, &text);
                return;
            }
            jobs.broken_off
                .fetch_add(usize::from(!is_stale), Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(random.below(20)));
    }
}

/// What one program does with one job.
struct Program<'a> {
    nodes: &'a [Node<'a>],
    /// The node that it runs on.
    own: usize,
    jobs: &'a Jobs,
    generation: u64,
    number: usize,
}

impl Program<'_> {
    fn node(&self) -> &Node<'_> {
        &self.nodes[self.own]
    }

    fn path(&self) -> PathBuf {
        self.node().top().join(job::path(self.number))
    }

    fn known(&self) -> &Mutex<Known> {
        &self.jobs.known[self.number]
    }

    /// Does something unless another program removes the job, or has removed it so recently that the nodes may not agree yet.
    fn using(&self, act: impl FnOnce(&Self) -> io::Result<()>) -> io::Result<()> {
        let Some(_user) = self.jobs.users[self.number].try_read() else {
            return Ok(());
        };
        let removed = self.known().lock().removed;
        match removed.is_some_and(|removed| removed.elapsed() < SEEN_WITHIN) {
            true => Ok(()),
            false => act(self),
        }
    }

    /// Deletes the job everywhere, while daemons may archive, move or recover it.
    fn delete(&self) -> io::Result<()> {
        let Some(_alone) = self.jobs.users[self.number].try_write() else {
            return Ok(());
        };
        let job = format!("{}/{}", job::TASK, job::hash(self.number));
        let arguments = ["--json", "jobs", "delete", "-w", "test", "--yes", &job];
        let output = self.node().xpmfs(&arguments).output()?;
        // A job that is in use is kept, as it is.
        if output.status.success() && text(&output).contains("\"deleted\"") {
            let now = Some(Instant::now());
            let mut known = self.known().lock();
            known.notes.clear();
            (known.completed, known.deleted, known.removed) = (None, now, now);
            self.jobs.deleted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Removes the job through the mount. A folder that has it serves it from then on, also in an older state.
    fn remove(&self) -> io::Result<()> {
        let Some(_alone) = self.jobs.users[self.number].try_write() else {
            return Ok(());
        };
        {
            let mut known = self.known().lock();
            if known.completed.is_none() {
                return Ok(());
            }
            (known.completed, known.removed) = (None, Some(Instant::now()));
            known.notes.iter_mut().for_each(|note| note.written = None);
        }
        let (path, begun) = (self.path(), Instant::now());
        // Again and again, as a user would: what is left of a job that was removed in part may be neither whole nor gone.
        while let Err(error) = fs::remove_dir_all(&path) {
            let is_gone = error.kind() == io::ErrorKind::NotFound;
            let location = xattr(&path, "user.xpmfs.location");
            // What a folder serves stays: EROFS.
            if is_gone || location.is_ok_and(|it| it != b"primary") {
                break;
            }
            if begun.elapsed() > REMOVED_WITHIN {
                let text = format!("{} cannot be removed: {error}", path.display());
                self.jobs.fail(self.number, &text);
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.known().lock().removed = Some(Instant::now());
        self.jobs.removed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the lock of the job, as experimaestro does; `None` if another program has it.
    fn lock(&self) -> io::Result<Option<Locked<'_>>> {
        let path = self.path();
        make_directory(path.parent().unwrap())?;
        make_directory(&path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = named("open of the lock", options.open(path.join("train.lock")))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            locked => named("flock", locked.map_err(io::Error::from))?,
        }
        let mut known = self.known().lock();
        // A node whose daemon was killed has lost its locks.
        if let Some((other, generation)) = known.holder
            && self.nodes[other].generation() == Some(generation)
            && self.node().generation() == Some(self.generation)
        {
            let text = format!("nodes {other} and {} hold the lock", self.own);
            self.jobs.fail(self.number, &text);
        }
        known.holder = Some((self.own, self.generation));
        Ok(Some(Locked {
            program: self,
            file,
        }))
    }

    /// Runs the job unless it is done.
    fn run(&self) -> io::Result<()> {
        let path = self.path();
        let done = path.join("train.done");
        if exists(&done)? {
            return Ok(());
        }
        let Some(locked) = self.lock()? else {
            return Ok(());
        };
        if exists(&done)? {
            return locked.release();
        }
        if self.known().lock().completed.is_some() {
            self.jobs
                .fail(self.number, &format!("is run again at {}", path.display()));
        }
        self.known().lock().deleted = None;
        // What a program has left that was cut off.
        match fs::remove_file(path.join("latest")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_unfinished(&path, self.number)?;
        fs::write(&done, "")?;
        self.known().lock().completed = Some(Instant::now());
        self.jobs.runs.fetch_add(1, Ordering::Relaxed);
        locked.release()
    }

    /// Adds a line to the notes of a job that is done.
    fn change(&self, step: usize) -> io::Result<()> {
        let path = self.path();
        if !exists(&path.join("train.done"))? {
            return Ok(());
        }
        let Some(locked) = self.lock()? else {
            return Ok(());
        };
        let name = self.node().top().file_name().unwrap().to_owned();
        let thread = std::thread::current().id();
        let line = format!("{} {thread:?} {step}\n", name.display());
        let note = Note {
            line: line.clone(),
            written: None,
        };
        let index = {
            let notes = &mut self.known().lock().notes;
            notes.push(note);
            notes.len() - 1
        };
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        let mut notes = named("open of the notes", options.open(path.join(NOTES)))?;
        named("write of the notes", notes.write_all(line.as_bytes()))?;
        drop(notes);
        self.known().lock().notes[index].written = Some(Instant::now());
        self.jobs.changes.fetch_add(1, Ordering::Relaxed);
        locked.release()
    }

    /// Reads a job that is done: what another node did before [`SEEN_WITHIN`] must be there.
    fn read(&self) -> io::Result<()> {
        let path = self.path();
        let (is_complete, is_rest, notes, deleted) = {
            let known = self.known().lock();
            let is_old =
                |since: Option<Instant>| since.is_some_and(|since| since.elapsed() > SEEN_WITHIN);
            let old = known.notes.iter().filter(|note| is_old(note.written));
            let lines: Vec<String> = old.map(|note| note.line.clone()).collect();
            let is_rest = known.completed.is_none() && known.removed.is_some();
            (is_old(known.completed), is_rest, lines, known.deleted)
        };
        if !exists(&path.join("train.done"))? {
            if is_complete {
                self.jobs
                    .fail(self.number, &format!("{} is not done", path.display()));
            }
            return Ok(());
        }
        if deleted.is_some() && self.known().lock().deleted == deleted {
            self.jobs.fail(
                self.number,
                &format!("{} was deleted, and is there again", path.display()),
            );
        }
        if !notes.is_empty() {
            let written = named("read of the notes", fs::read_to_string(path.join(NOTES)))?;
            if let Some(line) = notes.iter().find(|line| !written.contains(*line)) {
                let text = format!("{} lacks {line:?}:\n{written}", path.display());
                self.jobs.fail(self.number, &text);
            }
        }
        let contents = named("read", fs::read(path.join("model.bin")));
        // A folder may have the rest of a job that was being removed: a node has moved it meanwhile.
        if is_rest && matches!(&contents, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            return Ok(());
        }
        if contents? != job::model(self.number) {
            self.jobs.fail(
                self.number,
                &format!("{} has other contents", path.display()),
            );
        }
        self.jobs.reads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the primary's copy of the job, if it is archived.
    fn release(&self) -> io::Result<()> {
        if !self.jobs.releases || self.known().lock().completed.is_none() {
            return Ok(());
        }
        let job = format!("{}/{}", job::TASK, job::hash(self.number));
        let arguments = ["--json", "jobs", "release", "-w", "test", "--yes", &job];
        let output = self.node().xpmfs(&arguments).output()?;
        // A job that cannot be released now is reported with exit status 1.
        let printed = text(&output);
        if output.status.success() && printed.contains("\"released\"") {
            self.jobs.released.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A job's lock.
struct Locked<'a> {
    program: &'a Program<'a>,
    file: File,
}

impl Locked<'_> {
    fn release(self) -> io::Result<()> {
        self.forget();
        let unlocked = flock(&self.file, FlockOperation::Unlock);
        named("unlock", unlocked.map_err(io::Error::from))
    }

    /// Before the lock is free.
    fn forget(&self) {
        let program = self.program;
        let holder = &mut program.known().lock().holder;
        if *holder == Some((program.own, program.generation)) {
            *holder = None;
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Writes a job, all but its marker; a part of it may be there.
fn write_unfinished(job: &Path, number: usize) -> io::Result<()> {
    fs::create_dir_all(job.join(".experimaestro"))?;
    fs::create_dir_all(job.join("data/empty"))?;
    for (name, contents) in files(number) {
        fs::write(job.join(name), contents)?;
    }
    symlink("model.bin", job.join("latest"))
}

/// Adds to an error which call has failed.
fn named<T>(call: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{call}: {error}")))
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => named("mkdir", made),
    }
}

fn exists(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => named("stat of the marker", found).map(|_| true),
    }
}
