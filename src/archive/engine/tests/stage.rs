//! Makes a workspace on a real disk, and a simple implementation of `Disks`, for tests.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use parking_lot::{Condvar, Mutex};

use crate::archive::engine::disks::{Disks, Done, Failure, Look, StoreResult};
use crate::archive::engine::queue::backoff::{Backoff, Pace};
use crate::archive::engine::release::ReleaseState;
use crate::archive::engine::route::Route;
use crate::archive::engine::{Archiver, Idle, Timing};
use crate::archive::error::Scope;
use crate::archive::experiments::pass::{self, FolderPasses};
use crate::archive::job::opt_out::OptOuts;
use crate::archive::job::ready::Judge;
use crate::archive::job::store::Due;
use crate::settings::{Mode, Patterns};
use crate::transfer::{Progress, Size};
use crate::view::{FolderSpec, View, ViewSpec};
use crate::workspace::JobId;

pub(super) const TASK: &str = "my.module.train";
pub(super) const BACKUP: u8 = 1;
pub(super) const MOVE: u8 = 2;

/// How the disks behave in a test.
#[derive(Default)]
pub(super) struct Orders {
    /// The failure that each folder returns instead of storing a job.
    pub(super) refuses: HashMap<u8, Scope>,
    /// Folders that hang.
    pub(super) hangs: Vec<u8>,
    /// Whether the old directories of moved jobs are kept for a while, and how many are.
    pub(super) keeps: bool,
    pub(super) kept: usize,
    pub(super) cleared: Vec<OsString>,
    pub(super) looked: Vec<JobId>,
    pub(super) stored: Vec<(u8, JobId)>,
    /// Attempts to copy moved jobs, each with the `move` folder.
    pub(super) backed_up: Vec<(u8, JobId)>,
}

/// The size of each job.
pub(super) const SIZE: Size = Size {
    files: 3,
    bytes: 2048,
};

/// How long it keeps an old directory, if it does.
const KEPT: Duration = Duration::from_millis(2500);

pub(super) struct Fake {
    view: Arc<View>,
    pub(super) orders: Mutex<Orders>,
    pub(super) changed: Condvar,
}

impl Disks for Fake {
    fn is_there(&self, folder: u8) -> bool {
        self.view
            .location(folder)
            .is_some_and(|one| one.root().is_ok())
    }

    fn look(&self, job: &JobId, _: &Progress) -> Result<Look, Failure> {
        self.orders.lock().looked.push(job.clone());
        let path = self.view.primary_path().join("jobs").join(job.path());
        Ok(
            match path.join("train.done").exists() && !path.is_symlink() {
                true => Look::Ready(SIZE),
                false => Look::Nothing,
            },
        )
    }

    fn store(&self, folder: u8, jobs: &[Due], _: &Progress) -> Vec<StoreResult> {
        let mut orders = self.orders.lock();
        while orders.hangs.contains(&folder) {
            self.changed.wait(&mut orders);
        }
        let why = "refused by the test".to_owned();
        if let Some(scope) = orders.refuses.get(&folder) {
            let failure = Failure { scope: *scope, why };
            return jobs.iter().map(|_| Err(failure.clone())).collect();
        }
        if !self.is_there(folder) {
            let scope = Scope::Folder;
            return jobs
                .iter()
                .map(|_| {
                    Err(Failure {
                        scope,
                        why: why.clone(),
                    })
                })
                .collect();
        }
        orders
            .stored
            .extend(jobs.iter().map(|due| (folder, due.job.clone())));
        drop(orders);
        jobs.iter()
            .map(|due| Ok(self.bring(folder, &due.job)))
            .collect()
    }

    fn back_up_moved(
        &self,
        source: u8,
        folder: u8,
        jobs: &[JobId],
        _: &Progress,
        due: &mut dyn FnMut(&JobId),
    ) -> Vec<StoreResult> {
        let why = "refused by the test".to_owned();
        let scope = self.orders.lock().refuses.get(&folder).copied();
        let copied = jobs.iter().map(|job| {
            due(job);
            self.orders.lock().backed_up.push((source, job.clone()));
            match scope {
                Some(scope) => Err(Failure {
                    scope,
                    why: why.clone(),
                }),
                None => Ok(self.bring(folder, job)),
            }
        });
        copied.collect()
    }

    fn experiments(
        &self,
        _: &mut FolderPasses,
        _: &Progress,
        _: &mut dyn pass::PassObserver,
    ) -> Result<(), Failure> {
        Ok(())
    }

    fn clear(&self, task: &OsStr) {
        self.orders.lock().cleared.push(task.to_owned());
    }

    fn clear_folder(&self, _: u8, _: &Progress) -> Vec<JobId> {
        Vec::new()
    }

    fn tidy(&self, last: bool) -> Option<Instant> {
        if last && !self.is_tidy() {
            std::thread::sleep(KEPT);
            self.orders.lock().kept = 0;
        }
        None
    }

    fn is_tidy(&self) -> bool {
        self.orders.lock().kept == 0
    }

    fn release(&self, _: &ReleaseState, _: &Receiver<()>) {}

    fn report_put_back(&self, _: &mut dyn FnMut(JobId)) {}
}

impl Fake {
    fn bring(&self, folder: u8, job: &JobId) -> Done {
        let location = self.view.location(folder).unwrap();
        let path = location.path().join("jobs").join(job.path());
        let new = !path.exists();
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("train.done"), "").unwrap();
        if location.label().starts_with(b"move") {
            let primary = self.view.primary_path().join("jobs").join(job.path());
            fs::remove_dir_all(&primary).unwrap();
            symlink(path, primary).unwrap();
            let mut orders = self.orders.lock();
            orders.kept += usize::from(orders.keeps);
        }
        match new {
            true => Done::Stored { files: 1, bytes: 1 },
            false => Done::Already,
        }
    }
}

pub(super) struct Stage {
    pub(super) top: PathBuf,
    pub(super) view: Arc<View>,
    pub(super) fake: Arc<Fake>,
    pub(super) timing: Timing,
    pub(super) exclude: Option<Patterns>,
    _top: tempfile::TempDir,
}

impl Stage {
    /// A workspace with a `backup` and a `move` folder; the second only if it is asked for.
    pub(super) fn new(moves: bool) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let mut folders = Vec::new();
        for (mode, name) in [(Mode::Backup, "backup"), (Mode::Move, "move")] {
            if mode == Mode::Backup || moves {
                let path = top.join(name);
                fs::create_dir(&path).unwrap();
                folders.push(FolderSpec { mode, path });
            }
        }
        let primary = top.join("primary");
        fs::create_dir_all(primary.join("jobs")).unwrap();
        let spec = ViewSpec {
            workspace: "test".to_owned(),
            primary,
            folders,
            mountpoint: None,
        };
        let view = Arc::new(View::open(spec, None).unwrap());
        view.watch(Duration::from_millis(20));
        let fake = Arc::new(Fake {
            view: view.clone(),
            orders: Mutex::default(),
            changed: Condvar::new(),
        });
        let long = Backoff::seconds(3600, 3600);
        Stage {
            top,
            view,
            fake,
            timing: Timing {
                settle: Duration::ZERO,
                interval: Duration::from_secs(3600),
                pace: Pace {
                    look: long,
                    busy: long,
                    job: long,
                    folder: long,
                    tick: Duration::from_millis(20),
                    recheck: Duration::from_secs(86_400),
                    markers: Duration::from_secs(86_400),
                    breath: Duration::from_millis(1),
                },
            },
            exclude: None,
            _top: dir,
        }
    }

    pub(super) fn route(&self) -> Route {
        let out = OptOuts::new(self.exclude.clone(), HashMap::new());
        Route::new(&self.view, Arc::new(Judge::new(out)))
    }

    pub(super) fn start(&self) -> Arc<Archiver> {
        let disks = self.fake.clone();
        Archiver::begin(self.view.clone(), self.route(), self.timing, disks).unwrap()
    }

    pub(super) fn path(&self, location: &str, hash: impl AsRef<OsStr>) -> PathBuf {
        self.top
            .join(location)
            .join("jobs")
            .join(TASK)
            .join(Path::new(hash.as_ref()))
    }

    pub(super) fn unfinished(&self, hash: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path("primary", hash);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(super) fn finished(&self, hash: impl AsRef<OsStr>) -> PathBuf {
        let path = self.unfinished(hash);
        fs::write(path.join("train.done"), "").unwrap();
        path
    }

    /// A job that is in the primary and in the backup folder.
    pub(super) fn archived(&self, hash: &str) {
        self.finished(hash);
        let copy = self.path("backup", hash);
        fs::create_dir_all(&copy).unwrap();
        fs::write(copy.join("train.done"), "").unwrap();
    }

    /// Makes a finished job, or its copy, one of an earlier run.
    pub(super) fn make_earlier(&self, location: &str, hash: &str) {
        let marker = self.path(location, hash).join("train.done");
        let marker = fs::File::options().write(true).open(marker).unwrap();
        let earlier = std::time::SystemTime::now() - Duration::from_secs(60);
        marker.set_modified(earlier).unwrap();
    }

    pub(super) fn stored(&self) -> Vec<(u8, String)> {
        let orders = self.fake.orders.lock();
        let stored = orders.stored.iter();
        stored
            .map(|(folder, job)| (*folder, job.hash().to_string_lossy().into_owned()))
            .collect()
    }

    pub(super) fn order(&self, order: impl FnOnce(&mut Orders)) {
        order(&mut self.fake.orders.lock());
        self.fake.changed.notify_all();
    }

    pub(super) fn refuse(&self, folder: u8, scope: Scope) {
        self.order(|orders| {
            orders.refuses.insert(folder, scope);
        });
    }

    pub(super) fn journals(&self) -> Vec<String> {
        let entries = fs::read_dir(self.top.join("primary/.xpmfs/archive")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".jsonl")).collect()
    }
}

pub(super) fn job(hash: impl AsRef<OsStr>) -> JobId {
    JobId::new(TASK, hash.as_ref()).unwrap()
}

/// Waits for a condition that must become true.
pub(super) fn until(what: &str, mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happens() {
        assert!(Instant::now() < deadline, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until no job is left, or none that can be archived.
pub(super) fn settled(archiver: &Archiver) -> Idle {
    let mut idle = Idle::Yes;
    until("that it comes to rest", || {
        idle = archiver.is_idle();
        !matches!(idle, Idle::Busy { .. })
    });
    idle
}
