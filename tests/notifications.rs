//! What a mount reports to the archiver (jobs that change or are open for writing), and what the archiver reports to the
//! mount (jobs that moved). Each test serves a mount in its own process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use common::{Workspace, eventually, xattr};
use rustix::fs::{FlockOperation, RenameFlags, flock};
use xpmfs::daemon::attach::{Attachment, How, attach, detach};
use xpmfs::mount::{Activity, Connection, Handle, Mount, MountOptions, Serving};
use xpmfs::settings::Mode;
use xpmfs::view::{FolderSpec, View, ViewSpec};
use xpmfs::workspace::jobs::JobId;

const TASK: &str = "my.module.train";

/// Keeps what is reported, in order.
#[derive(Default)]
struct Recorder {
    reports: Mutex<Vec<JobId>>,
    /// What is looked at with each report, if it was there then.
    watched: Mutex<Option<(PathBuf, bool)>>,
}

impl Activity for Recorder {
    fn touched(&self, job: JobId) {
        if let Some((path, there)) = &mut *self.watched.lock().unwrap() {
            *there = path.exists();
        }
        self.reports.lock().unwrap().push(job);
    }
}

/// A mount of a workspace in place, served by this process.
struct Served<'a> {
    workspace: &'a Workspace,
    /// The primary, beneath the mount.
    beneath: OwnedFd,
    recorder: Arc<Recorder>,
    mount: Handle,
    thread: Option<JoinHandle<()>>,
}

impl<'a> Served<'a> {
    fn new(workspace: &'a Workspace) -> Served<'a> {
        let primary = workspace.primary();
        let beneath: OwnedFd = File::open(&primary).unwrap().into();
        let folder = |mode, name| FolderSpec {
            mode,
            path: workspace.folder(name),
        };
        let spec = ViewSpec {
            workspace: "test".to_owned(),
            primary: primary.clone(),
            folders: vec![folder(Mode::Backup, "backup"), folder(Mode::Move, "move")],
            mountpoint: Some(primary.clone()),
        };
        let view = Arc::new(View::open(spec, None).unwrap());
        let recorder = Arc::<Recorder>::default();
        let root = rustix::process::geteuid().is_root();
        let options = MountOptions {
            default_permissions: root,
            alone: true,
            ..MountOptions::default()
        };
        let mount = Mount::new(view, options).unwrap();
        let handle = mount.handle();
        let attachment = Attachment {
            default_permissions: root,
            ..Attachment::new(&primary, "test")
        };
        let fuse = attach(&attachment).unwrap();
        let (ready, is_ready) = mpsc::channel();
        let activity = recorder.clone();
        let thread = std::thread::spawn(move || {
            let ready = || ready.send(()).unwrap();
            let serving = Serving {
                connection: Connection::new(fuse),
                keeper: None,
                inheritance: None,
                activity: Some(activity),
                recover: None,
            };
            mount.serve(serving, &ready).unwrap();
        });
        let served = Served {
            workspace,
            beneath,
            recorder,
            mount: handle,
            thread: Some(thread),
        };
        is_ready.recv().unwrap();
        served
    }

    /// A job's directory in the mount.
    fn job(&self, hash: &str) -> PathBuf {
        self.workspace.primary().join("jobs").join(TASK).join(hash)
    }

    /// The jobs that are reported at once while something is done, each as often as it is.
    fn reports(&self, work: impl FnOnce()) -> Vec<String> {
        self.settle();
        self.reports_at_once(work)
    }

    /// Like [`Served::reports`], with those of what has been done before.
    fn reports_at_once(&self, work: impl FnOnce()) -> Vec<String> {
        self.recorder.reports.lock().unwrap().clear();
        work();
        let reports = self.recorder.reports.lock().unwrap();
        reports
            .iter()
            .map(|job| job.hash().to_string_lossy().into_owned())
            .collect()
    }

    /// Waits until nothing is reported any more.
    fn settle(&self) {
        let count = || self.recorder.reports.lock().unwrap().len();
        let mut before = count();
        loop {
            // Two intervals of reports.
            std::thread::sleep(Duration::from_millis(1100));
            let now = count();
            if now == before {
                return;
            }
            before = now;
        }
    }

    fn is_written(&self, hash: &str) -> bool {
        self.mount.is_written(&JobId::new(TASK, hash).unwrap())
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let _ = detach(&self.workspace.primary(), How::Lazy);
        if let Some(thread) = self.thread.take().filter(|_| !std::thread::panicking()) {
            thread.join().unwrap();
        }
    }
}

/// Something that alters the job with this directory.
type Alteration = (&'static str, fn(&Path));

const ALTERATIONS: [Alteration; 9] = [
    ("mkdir", |job| {
        fs::create_dir(job.join("directory")).unwrap()
    }),
    ("mkdir-below", |job| {
        fs::create_dir(job.join(".experimaestro/directory")).unwrap();
    }),
    ("symlink", |job| symlink("x", job.join("link")).unwrap()),
    ("chmod", |job| {
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(job.join("model.bin"), mode).unwrap();
    }),
    ("rename", |job| {
        fs::rename(job.join("model.bin"), job.join("m")).unwrap();
    }),
    ("unlink", |job| {
        fs::remove_file(job.join("model.bin")).unwrap()
    }),
    ("open", |job| {
        let file = File::options().write(true).open(job.join("model.bin"));
        drop(file.unwrap());
    }),
    ("xattr", |job| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(job, "user.a", b"b", flags).unwrap();
    }),
    ("remove", |job| fs::remove_dir_all(job).unwrap()),
];

#[test]
fn whatever_alters_a_job_of_the_primary_is_reported() {
    let workspace = Workspace::new();
    for (hash, _) in ALTERATIONS {
        workspace.finished("primary", TASK, hash);
    }
    for hash in ["a", "b", "untouched"] {
        workspace.finished("primary", TASK, hash);
    }
    workspace.finished("backup", TASK, "archived");
    let served = Served::new(&workspace);
    for (hash, alter) in ALTERATIONS {
        let reports = served.reports_at_once(|| alter(&served.job(hash)));
        assert!(reports.iter().any(|one| one == hash), "{hash}: {reports:?}");
    }
    let made = served.reports_at_once(|| fs::create_dir(served.job("new")).unwrap());
    assert!(made.iter().any(|one| one == "new"), "{made:?}");
    let (first, second) = (served.job("a").join("model.bin"), served.job("b").join("m"));
    let both = |mut reports: Vec<String>| {
        reports.sort();
        reports.dedup();
        assert_eq!(reports, ["a", "b"]);
    };
    both(served.reports(|| fs::hard_link(&first, &second).unwrap()));
    // A file of two jobs is altered in both.
    let mode = fs::Permissions::from_mode(0o640);
    both(served.reports(|| fs::set_permissions(&first, mode).unwrap()));
    let none = served.reports(|| {
        fs::read(served.job("untouched").join("model.bin")).unwrap();
        // What is internal to an archived job is none of the primary's.
        fs::write(served.job("archived").join("train.lock"), "").unwrap();
        fs::write(workspace.primary().join("elsewhere"), "").unwrap();
    });
    assert_eq!(none, [""; 0]);
}

#[test]
fn the_end_of_writing_and_of_locking_and_a_marker_are_reported_at_once() {
    let workspace = Workspace::new();
    workspace.finished("primary", TASK, "a");
    let served = Served::new(&workspace);
    let job = served.job("a");
    let mut file = OpenOptions::new()
        .append(true)
        .open(job.join("train.out"))
        .unwrap();
    file.write_all(b"more").unwrap();
    let count = || served.recorder.reports.lock().unwrap().len();
    served.settle();
    let before = count();
    drop(file);
    // The kernel does not wait for us when it closes a file.
    eventually("closing is reported", || count() > before);
    let lock = File::open(job.join("params.json")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    assert_eq!(
        served.reports(|| flock(&lock, FlockOperation::Unlock).unwrap()),
        ["a"]
    );
    let marked = served.reports(|| {
        fs::create_dir(job.join("x")).unwrap();
        symlink("x", job.join("train.failed")).unwrap();
    });
    // The directory, the marker; and once more if half a second has gone by.
    assert!(marked.len() >= 2, "{marked:?}");
    assert!(marked.iter().all(|one| one == "a"), "{marked:?}");
}

#[test]
fn a_job_that_is_altered_all_the_time_is_reported_seldom_and_after_the_last_time() {
    let workspace = Workspace::new();
    workspace.finished("primary", TASK, "a");
    let served = Served::new(&workspace);
    let job = served.job("a");
    let mut took = Duration::ZERO;
    let reports = served.reports(|| {
        let begun = Instant::now();
        for number in 0..1000 {
            fs::create_dir(job.join(format!("{number}"))).unwrap();
        }
        took = begun.elapsed();
    });
    // One each half second.
    let most = 10 + 2 * usize::try_from(took.as_secs()).unwrap();
    assert!(reports.len() <= most, "{} in {took:?}", reports.len());
    let last = Path::new(&job).join("last");
    let there = workspace.top().join("there");
    *served.recorder.watched.lock().unwrap() = Some((there.clone(), false));
    // Nothing that the reports look at is in the mount: they are made by those who serve it.
    fs::create_dir(&last).unwrap();
    fs::write(&there, "").unwrap();
    fs::create_dir(job.join("after")).unwrap();
    eventually("a report after the last time", || {
        let watched = served.recorder.watched.lock().unwrap();
        matches!(&*watched, Some((_, true)))
    });
}

#[test]
fn a_job_is_being_written_while_a_file_of_it_is_open_for_that() {
    let workspace = Workspace::new();
    for hash in ["a", "b"] {
        workspace.finished("primary", TASK, hash);
    }
    let served = Served::new(&workspace);
    let open = |path: PathBuf| {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap()
    };
    assert!(!served.is_written("a"));
    let read = File::open(served.job("a").join("model.bin")).unwrap();
    assert!(!served.is_written("a"));
    drop(read);
    for internal in ["train.lock", ".experimaestro/train.lock", "train.pid"] {
        let _open = open(served.job("a").join(internal));
        assert!(!served.is_written("a"), "{internal}");
    }
    for data in ["model.bin", ".experimaestro/status.json", "uv.lock"] {
        let file = open(served.job("a").join(data));
        assert!(served.is_written("a"), "{data}");
        assert!(!served.is_written("b"), "{data}");
        drop(file);
        eventually("it is closed", || !served.is_written("a"));
    }
    let (name, other) = (served.job("a").join("model.bin"), served.job("b").join("m"));
    fs::hard_link(&name, &other).unwrap();
    let file = open(name.clone());
    assert!(served.is_written("a") && served.is_written("b"));
    fs::remove_file(name).unwrap();
    fs::remove_file(other).unwrap();
    assert!(!served.is_written("a") && !served.is_written("b"));
    drop(file);
}

#[test]
fn a_job_that_has_moved_is_found_in_its_new_place_at_once() {
    let workspace = Workspace::new();
    let job = workspace.finished("primary", TASK, "a");
    // So that the mount may believe for long that nothing changes.
    let old = SystemTime::now() - Duration::from_secs(1000);
    File::open(&job).unwrap().set_modified(old).unwrap();
    let served = Served::new(&workspace);
    let location = || {
        let location = xattr(&served.job("a"), "user.xpmfs.location").unwrap();
        String::from_utf8(location).unwrap()
    };
    assert_eq!(location(), "primary");
    let mut open = File::open(served.job("a").join("model.bin")).unwrap();
    // The archived job is there already; the symlink takes its place.
    let task = rustix::fs::openat(
        &served.beneath,
        format!("jobs/{TASK}"),
        rustix::fs::OFlags::PATH,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let archived = workspace.folder("move").join("jobs").join(TASK).join("a");
    common::write_job(&archived, TASK);
    rustix::fs::symlinkat(&archived, &task, ".tmp.a").unwrap();
    rustix::fs::renameat_with(&task, ".tmp.a", &task, "a", RenameFlags::EXCHANGE).unwrap();
    let id = JobId::new(TASK, "a").unwrap();
    served.mount.moved(&id);
    eventually("it is served by the folder", || {
        location().starts_with("move:")
    });
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut open, &mut content).unwrap();
    assert_eq!(content, [7; 10_000]);
    // And back.
    rustix::fs::renameat_with(&task, ".tmp.a", &task, "a", RenameFlags::EXCHANGE).unwrap();
    served.mount.moved(&id);
    eventually("it is served by the primary", || location() == "primary");
}
