//! Purges at random of jobs in all states, beneath a mount: archived jobs are whole, living ones are the primary's, and `release` and
//! `recover` get it right. `XPMFS_SOAK=1` makes many rounds; `XPMFS_TEST_SEED` repeats one.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use crate::common::{self, Mounted, Workspace, assert_unchanged, eventually, snapshot};
use crate::mounted::hash;
use crate::scratch::{Random, TASK, files, write_job};

const JOBS: usize = 12;

/// What is done to a job before the purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Nothing: it is archived, and left alone.
    Archived,
    /// A user has made a file in it, which no folder has.
    Changed,
    /// It has failed since.
    Failed,
    /// It runs again.
    Running,
    /// A file of it was removed through the mount.
    Removed,
}

impl Life {
    fn random(random: &mut Random) -> Life {
        match random.below(10) {
            0 => Life::Changed,
            1 => Life::Failed,
            2 => Life::Running,
            3 | 4 => Life::Removed,
            _ => Life::Archived,
        }
    }
}

struct Round<'a> {
    workspace: &'a Workspace,
    mounted: &'a Mounted<'a>,
    /// The primary beneath the mount.
    primary: PathBuf,
    lives: Vec<Life>,
    what: String,
}

impl Round<'_> {
    fn shown(&self, number: usize) -> PathBuf {
        self.mounted.job(TASK, &hash(number))
    }

    fn beneath(&self, number: usize) -> PathBuf {
        self.primary.join("jobs").join(TASK).join(hash(number))
    }

    fn copy(&self, number: usize) -> PathBuf {
        let jobs = self.workspace.folder("backup").join("jobs");
        jobs.join(TASK).join(hash(number))
    }

    fn living(&self) -> impl Iterator<Item = usize> {
        (0..JOBS).filter(|number| self.lives[*number] != Life::Archived)
    }

    fn begin(&self, locks: &mut Vec<File>) {
        for (number, life) in self.lives.iter().enumerate() {
            match life {
                Life::Archived => {}
                Life::Changed => fs::write(self.shown(number).join("data/mine"), "mine").unwrap(),
                Life::Failed => fs::write(self.beneath(number).join("train.failed"), "1").unwrap(),
                Life::Running => {
                    let lock = File::create(self.beneath(number).join("train.lock")).unwrap();
                    flock(&lock, FlockOperation::LockExclusive).unwrap();
                    locks.push(lock);
                }
                Life::Removed => {
                    fs::remove_file(self.shown(number).join("data/model.bin")).unwrap()
                }
            }
        }
    }

    /// Removes old files, and leaves directories, while programs look at the jobs.
    fn purge(&self, random: &mut Random) -> usize {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for number in 0..JOBS {
                        // Until the purge is noticed, a file may be missing.
                        let listed = std::panic::catch_unwind(|| files(&self.shown(number)));
                        for name in listed.unwrap_or_default() {
                            let _ = fs::read(self.shown(number).join(name));
                        }
                    }
                }
            });
            let mut removed = 0;
            for _ in 0..1 + random.below(3) {
                for number in 0..JOBS {
                    removed += purge_by_age(&self.beneath(number), random);
                }
                std::thread::sleep(Duration::from_millis(random.below(300) as u64));
            }
            over.store(true, Ordering::Relaxed);
            removed
        })
    }

    fn purge_and_check(&self, random: &mut Random) {
        self.workspace.as_user(|| {
            self.purge(random);
            self.check();
        });
    }

    fn check(&self) {
        for (number, life) in self.lives.iter().enumerate() {
            let what = format!("{}, job {number}, {life:?}", self.what);
            let shown = self.shown(number);
            match life {
                Life::Archived => {
                    let whole = contents(&self.copy(number));
                    eventually(&format!("{what} is whole"), || contents(&shown) == whole);
                }
                _ => {
                    let own = contents(&self.beneath(number));
                    eventually(&format!("{what} is the primary's"), || {
                        self.mounted.location(&shown) == "primary" && contents(&shown) == own
                    });
                }
            }
        }
    }

    fn command(&self, arguments: &[&str]) {
        let mut command = self.workspace.xpmfs();
        let output = command.args(arguments).args(["-w", "test"]).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {text}", self.what);
    }
}

/// The contents of the files of a job, and where symlinks lead. A recovery writes the workspace's path into `params.json`.
fn contents(job: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |name: PathBuf| {
        let path = job.join(&name);
        let content = match path.is_symlink() {
            true => {
                fs::read_link(&path).map(|target| target.as_os_str().as_encoded_bytes().to_owned())
            }
            false => fs::read(&path),
        };
        (name, content.unwrap_or_default())
    };
    let found = std::panic::catch_unwind(|| files(job)).unwrap_or_default();
    found
        .into_iter()
        .filter(|name| name != Path::new("params.json"))
        .map(read)
        .collect()
}

/// Removes files of a job whose last change is older than a random age.
fn purge_by_age(job: &Path, random: &mut Random) -> usize {
    let days = 1 + random.below(150) as u64;
    let percent = [30, 70, 100][random.below(3)];
    let found = std::panic::catch_unwind(|| files(job)).unwrap_or_default();
    let mut removed = 0;
    for name in found {
        let path = job.join(name);
        let is_old = path.symlink_metadata().is_ok_and(|stat| {
            let age = stat.modified().unwrap().elapsed().unwrap_or_default();
            // Symlinks are made anew, without their time.
            stat.is_symlink() || age > Duration::from_secs(days * 86_400)
        });
        if is_old && random.chance(percent) && fs::remove_file(path).is_ok() {
            removed += 1;
        }
    }
    removed
}

fn round(seed: u64) {
    let random = &mut Random(seed * 2_654_435_761 + 1);
    let ordinary = !common::is_root() || random.chance(30);
    let in_place = random.chance(50);
    let workspace = match ordinary {
        true => Workspace::of_ordinary_user(),
        false => Workspace::new(),
    };
    workspace.write_settings(&["backup"], Some("{settle: 0s, scan_interval: 1h}"));
    for number in 0..JOBS {
        let jobs = workspace.primary().join("jobs").join(TASK);
        write_job(&jobs.join(hash(number)), random);
    }
    workspace.give_away();
    let beneath = File::open(workspace.primary()).unwrap();
    let archive = ["jobs", "archive", "--all", "-w", "test"];
    common::run(workspace.xpmfs().args(archive));
    let folder = snapshot(&workspace.folder("backup"));
    let mountpoint = match in_place {
        true => workspace.primary(),
        false => workspace.mountpoint("elsewhere"),
    };
    let lives: Vec<Life> = (0..JOBS).map(|_| Life::random(random)).collect();
    let what = format!("XPMFS_TEST_SEED={seed}, ordinary {ordinary}, in place {in_place}");
    let mut locks = Vec::new();
    // The second time, with a mount that has looked nothing up before.
    for pass in 0..2 {
        let mounted = workspace.mount_at(&mountpoint);
        let round = Round {
            workspace: &workspace,
            mounted: &mounted,
            primary: PathBuf::from(format!("/proc/self/fd/{}", beneath.as_raw_fd())),
            lives: lives.clone(),
            what: format!("{what}, pass {pass}"),
        };
        let living = || {
            let living = round
                .living()
                .map(|number| snapshot(&round.beneath(number)));
            living.collect::<Vec<_>>()
        };
        if pass == 0 {
            workspace.as_user(|| {
                (0..JOBS).for_each(|number| drop(contents(&round.shown(number))));
                round.begin(&mut locks);
            });
        }
        round.purge_and_check(random);
        let before = living();
        round.command(&["jobs", "release", "--older-than", "0s", "--yes"]);
        workspace.as_user(|| round.check());
        round.command(&["jobs", "recover", "--all"]);
        workspace.as_user(|| round.check());
        assert_eq!(living(), before, "{}", round.what);
        for number in (0..JOBS).filter(|number| lives[*number] == Life::Archived) {
            let (own, copy) = (
                contents(&round.beneath(number)),
                contents(&round.copy(number)),
            );
            assert_eq!(own, copy, "{}, job {number} is recovered", round.what);
        }
        // What was recovered is purged again.
        round.purge_and_check(random);
        mounted.unmount();
        assert_unchanged(&workspace.folder("backup"), &folder);
    }
}

#[test]
fn random_purges_hide_no_archived_job_and_replace_no_living_one() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed: u64 = match std::env::var("XPMFS_TEST_SEED") {
        Ok(seed) => return round(seed.parse().unwrap()),
        Err(_) => now.unwrap().subsec_nanos().into(),
    };
    let rounds = if common::soak() { 30 } else { 1 };
    for number in 0..rounds {
        let seed = seed + number;
        common::say(&format!("XPMFS_TEST_SEED={seed}"));
        round(seed);
    }
}
