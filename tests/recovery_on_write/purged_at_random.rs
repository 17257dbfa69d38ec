//! Writers and a purge at random: each write that succeeded is there, jobs without one are whole, and folders stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, SystemTime};

use crate::common::{self, eventually};
use crate::purges::{Stage, append, everywhere};
use crate::scratch::{Random, files};

const WRITERS: u64 = 4;

/// How many jobs there are, and how long writers write to them.
fn amount() -> (usize, Duration) {
    match common::soak() {
        true => (60, Duration::from_secs(60)),
        false => (12, Duration::from_secs(2)),
    }
}

fn seed() -> u64 {
    let given = std::env::var("XPMFS_TEST_SEED").ok();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    given.map_or_else(
        || now.unwrap().subsec_nanos().into(),
        |seed| seed.parse().unwrap(),
    )
}

/// What the writers have done to each job.
#[derive(Default)]
struct Done {
    /// Files that were made, and their contents.
    made: BTreeMap<usize, Vec<(PathBuf, String)>>,
    /// Texts that were appended to `train.out`.
    appended: BTreeMap<usize, Vec<String>>,
    /// Jobs of which something was changed.
    changed: BTreeSet<usize>,
    /// Jobs that a writer has opened for writing or changed, or is about to: such a job is living, also while the file is open.
    used: BTreeSet<usize>,
    errors: Vec<String>,
}

/// One change of one job.
fn change(job: &Path, kind: usize, name: &str) -> std::io::Result<Option<(PathBuf, String)>> {
    match kind {
        0 => {
            let path = Path::new("data").join(name);
            fs::write(job.join(&path), name)?;
            Ok(Some((path, name.to_owned())))
        }
        1 => {
            let temporary = job.join(format!("{name}.tmp"));
            fs::write(&temporary, name)?;
            fs::rename(&temporary, job.join(name))?;
            Ok(Some((name.into(), name.to_owned())))
        }
        2 => {
            let _appending = APPENDING.read().unwrap();
            let mut file = File::options().append(true).open(job.join("train.out"))?;
            file.write_all(format!("{name}\n").as_bytes())?;
            Ok(None)
        }
        3 => {
            let mut permissions = fs::metadata(job.join("params.json"))?.permissions();
            permissions.set_mode(0o644);
            fs::set_permissions(job.join("params.json"), permissions)?;
            Ok(None)
        }
        _ => {
            // Opened for writing, and left as it is.
            let file = File::options().write(true).open(job.join("train.err"))?;
            std::thread::sleep(Duration::from_millis(20));
            drop(file);
            Ok(None)
        }
    }
}

/// Held while a text is appended, and while the purge looks at a file and removes it: a file that is appended to between the two is lost
/// on any disk.
static APPENDING: RwLock<()> = RwLock::new(());

/// Removes old files of a job beneath the mount, at random, as a purge by age does. Returns how many.
fn purge_old(job: &Path, random: &mut Random) -> usize {
    let percent = [5, 50, 100][random.below(3)];
    let Ok(found) = std::panic::catch_unwind(|| files(job)) else {
        return 0;
    };
    let is_old = |path: &Path| {
        let Ok(stat) = path.symlink_metadata() else {
            return false;
        };
        let age = stat.modified().unwrap().elapsed().unwrap_or_default();
        age > Duration::from_secs(86_400)
    };
    let mut removed = 0;
    for name in found {
        let path = job.join(name);
        let _appended = path
            .ends_with("train.out")
            .then(|| APPENDING.write().unwrap());
        if is_old(&path) && random.chance(percent) && fs::remove_file(path).is_ok() {
            removed += 1;
        }
    }
    removed
}

fn write_and_purge(stage: &Stage<'_>, jobs: usize, span: Duration, seed: u64) -> Done {
    let done = Mutex::new(Done::default());
    let over = AtomicBool::new(false);
    let stale = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (done, over, stale) = (&done, &over, &stale);
            scope.spawn(move || {
                let mut random = Random(seed * 31 + writer * 7919 + 1);
                let mut round = 0;
                while !over.load(Ordering::Relaxed) {
                    round += 1;
                    // The first jobs are only read, the next ones are changed in their attributes at most.
                    let number = jobs / 6 + random.below(jobs - jobs / 6);
                    let kind = match number < jobs / 3 {
                        true => 3,
                        false => random.below(5),
                    };
                    let name = format!("w{writer}-{round}");
                    if kind != 3 {
                        done.lock().unwrap().used.insert(number);
                    }
                    let mut changed = change(&stage.shown(number), kind, &name);
                    // Repeated once: the kernel looks a path up a second time after ESTALE, and passes the error of that to the program. A
                    // purge between the lookup and the call, twice in a row, is seen only by this test, whose purge never rests. The
                    // call has changed nothing then; a second failure is a fault.
                    let is_stale = |error: &std::io::Error| {
                        error.raw_os_error() == Some(rustix::io::Errno::STALE.raw_os_error())
                    };
                    if changed.as_ref().is_err_and(is_stale) {
                        stale.fetch_add(1, Ordering::Relaxed);
                        changed = change(&stage.shown(number), kind, &name);
                    }
                    let mut done = done.lock().unwrap();
                    match changed {
                        Ok(Some(made)) => done.made.entry(number).or_default().push(made),
                        Ok(None) if kind == 2 => {
                            done.appended.entry(number).or_default().push(name)
                        }
                        Ok(None) => {}
                        // A living job lacks what a purge removed from it.
                        Err(error)
                            if error.kind() == std::io::ErrorKind::NotFound
                                && done.used.contains(&number) => {}
                        Err(error) => done.errors.push(format!("{number}, kind {kind}: {error}")),
                    }
                    if kind < 3 {
                        done.changed.insert(number);
                    }
                }
            });
        }
        let random = &mut Random(seed * 17 + 3);
        let begun = SystemTime::now();
        while begun.elapsed().unwrap_or_default() < span {
            let number = random.below(jobs);
            purge_old(&stage.in_primary(number), random);
            std::thread::sleep(Duration::from_millis(random.below(60) as u64));
        }
        over.store(true, Ordering::Relaxed);
    });
    let (done, stale) = (done.into_inner().unwrap(), stale.into_inner());
    common::say(&format!(
        "{} jobs changed, {stale} changes tried again",
        done.changed.len()
    ));
    done
}

#[test]
fn writers_beside_a_purge_lose_nothing() {
    let (jobs, span) = amount();
    let seed = seed();
    common::say(&format!("XPMFS_TEST_SEED={seed}"));
    everywhere(jobs, |stage| {
        let done = write_and_purge(stage, jobs, span, seed);
        assert!(done.errors.is_empty(), "seed {seed}: {:#?}", done.errors);
        for number in 0..jobs {
            let shown = stage.shown(number);
            for (path, text) in done.made.get(&number).into_iter().flatten() {
                let found = fs::read_to_string(shown.join(path)).ok();
                assert_eq!(
                    found.as_ref(),
                    Some(text),
                    "seed {seed}, job {number}: {}",
                    path.display()
                );
            }
            if let Some(appended) = done.appended.get(&number) {
                let text = fs::read_to_string(shown.join("train.out")).unwrap_or_default();
                for line in appended {
                    assert!(
                        text.lines().any(|it| it.ends_with(line.as_str())),
                        "seed {seed}, job {number}: {line} is not in {text}"
                    );
                }
            }
        }
        // What nobody changed is whole, from wherever it is served.
        let unchanged: Vec<usize> = (0..jobs)
            .filter(|number| !done.changed.contains(number))
            .collect();
        assert!(unchanged.len() >= jobs / 3);
        for number in &unchanged {
            let whole = files(&stage.copy(*number));
            eventually(&format!("seed {seed}: job {number} is whole"), || {
                files(&stage.shown(*number)) == whole
            });
        }
        // Completed by a write, the primary has all of it.
        for number in &unchanged {
            append(&stage.shown(*number).join("train.err"), "");
        }
        for number in &unchanged {
            stage.assert_whole(*number, &[]);
        }
    });
}
