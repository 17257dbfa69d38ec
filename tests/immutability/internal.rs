//! Internal files of archived jobs live in the primary.

use super::*;

/// Where the internal files of an archived job live.
fn internal(workspace: &Workspace, hash: &str) -> PathBuf {
    let top = workspace.primary().join(".xpmfs/internal");
    top.join(TASK).join(hash)
}

const INTERNAL_FILES: [&str; 8] = [
    "train.lock",
    ".lock",
    "train.pid",
    "other.pid",
    "empty.lock",
    ".experimaestro/train.lock",
    ".experimaestro/status.json",
    ".scheduler/log",
];

/// Makes, locks, writes and renames internal files in a job that a folder serves.
fn use_internal_files(job: &Path) {
    let exclusive = FlockOperation::NonBlockingLockExclusive;
    let create = OFlags::RDWR | OFlags::CREATE;
    fs::create_dir(job.join(".scheduler")).unwrap();
    for name in INTERNAL_FILES {
        let path = job.join(name);
        let file = open(&path, create).unwrap_or_else(|error| panic!("{name}: {error}"));
        rustix::fs::flock(&file, exclusive).unwrap();
        let other = open(&path, create).unwrap();
        let locked = rustix::fs::flock(&other, exclusive);
        assert_eq!(locked, Err(Errno::WOULDBLOCK), "{name}");
        if !name.ends_with("empty.lock") {
            rustix::io::write(&file, b"written").unwrap();
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o640)).unwrap();
            rustix::fs::futimens(&file, &now()).unwrap();
            drop((file, other));
            let written = fs::read(&path).unwrap();
            assert!(written.starts_with(b"written"), "{name}: {written:?}");
        }
    }
    // As experimaestro writes it.
    let temporary = job.join(".experimaestro/status.json.tmp");
    fs::write(&temporary, "{\"state\": \"new\"}").unwrap();
    fs::rename(&temporary, job.join(".experimaestro/status.json")).unwrap();
    fs::rename(job.join("other.pid"), job.join("renamed.pid")).unwrap();
}

/// What the view shows of them then.
fn see_internal_files(job: &Path) {
    let listed = names(job);
    for name in [
        "train.lock",
        ".lock",
        "train.pid",
        "renamed.pid",
        "empty.lock",
        ".scheduler",
    ] {
        let times = listed.iter().filter(|listed| *listed == name).count();
        assert_eq!(times, 1, "{name} in {listed:?}");
    }
    assert!(!listed.contains(&"other.pid".into()), "{listed:?}");
    assert_eq!(names(&job.join(".scheduler")), ["log"]);
    let nested = names(&job.join(".experimaestro"));
    assert_eq!(nested, ["status.json", "train.lock"]);
    let read = |name: &str| fs::read_to_string(job.join(name)).unwrap();
    assert_eq!(read(".experimaestro/status.json"), "{\"state\": \"new\"}");
    assert_eq!(read("renamed.pid"), "written");
    assert_eq!(read("empty.lock"), "");
    assert_eq!(read("uv.lock"), "version = 1\n");
    assert_eq!(
        fs::metadata(job.join("train.pid")).unwrap().mode() & 0o777,
        0o640
    );
}

#[test]
fn internal_files_of_archived_jobs_live_in_the_primary() {
    as_everyone(|workspace| {
        one_job_each(workspace);
        let elsewhere = workspace.mountpoint("elsewhere");
        let before = folders(workspace);
        let jobs = snapshot(&workspace.primary().join("jobs"));
        let mounted = workspace.mount_at(&elsewhere);
        for folder in FOLDERS {
            let hash = format!("in-{folder}");
            let job = mounted.job(TASK, &hash);
            workspace.as_user(|| {
                use_internal_files(&job);
                see_internal_files(&job);
            });
            let beneath = internal(workspace, &hash);
            assert_eq!(
                names(&beneath),
                [
                    ".experimaestro",
                    ".lock",
                    ".scheduler",
                    "empty.lock",
                    "renamed.pid",
                    "train.lock",
                    "train.pid"
                ]
            );
            let exclusive = FlockOperation::NonBlockingLockExclusive;
            let lock = workspace.as_user(|| open(&job.join("train.lock"), OFlags::RDWR).unwrap());
            rustix::fs::flock(&lock, exclusive).unwrap();
            let same = File::open(beneath.join("train.lock")).unwrap();
            assert_eq!(rustix::fs::flock(&same, exclusive), Err(Errno::WOULDBLOCK));
        }
        mounted.unmount();
        let mounted = workspace.mount_in_place();
        workspace.as_user(|| {
            for folder in FOLDERS {
                let job = mounted.job(TASK, &format!("in-{folder}"));
                see_internal_files(&job);
                for name in [
                    "train.lock",
                    ".lock",
                    "train.pid",
                    "renamed.pid",
                    "empty.lock",
                ] {
                    fs::remove_file(job.join(name)).unwrap();
                    assert!(!names(&job).contains(&name.into()), "{name} still there");
                    assert!(!job.join(name).exists(), "{name} still there");
                }
                fs::remove_file(job.join(".experimaestro/train.lock")).unwrap();
                fs::remove_dir_all(job.join(".scheduler")).unwrap();
                // The folder has this one, too: it would not go away.
                let removed = rustix::fs::unlink(job.join(".experimaestro/status.json"));
                assert_eq!(removed, Err(Errno::ROFS));
                assert!(!names(&job).contains(&".scheduler".into()));
            }
        });
        mounted.unmount();
        assert_same(&before, &folders(workspace));
        assert_same(&[jobs], &[snapshot(&workspace.primary().join("jobs"))]);
    });
}

#[test]
fn a_lock_in_an_archived_job_is_internal_only_as_long_as_it_is_empty() {
    as_everyone(|workspace| {
        one_job_each(workspace);
        let before = folders(workspace);
        let mounted = workspace.mount_in_place();
        let mut tried = Attempts::default();
        workspace.as_user(|| {
            for folder in FOLDERS {
                let job = mounted.job(TASK, &format!("in-{folder}"));
                let flags = OFlags::RDWR | OFlags::CREATE;
                for name in ["foo.lock", "poetry.lock"] {
                    let file = open(&job.join(name), flags).unwrap();
                    tried.read_only("write", rustix::io::write(&file, b"x"));
                    tried.read_only("grow", rustix::fs::ftruncate(&file, 1));
                    let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1);
                    tried.read_only("allocate", allocated);
                    let from = File::open(job.join("train.out")).unwrap();
                    let copied = rustix::fs::copy_file_range(&from, None, &file, None, 5);
                    tried.read_only("copy_file_range", copied);
                    rustix::fs::ftruncate(&file, 0).unwrap();
                    let written =
                        rustix::fs::renameat(CWD, job.join("train.out"), CWD, job.join(name));
                    tried.read_only("rename data over it", written);
                    assert_eq!(fs::metadata(job.join(name)).unwrap().len(), 0);
                }
                // With something in it, it is not internal however it came to be so.
                let pid = job.join("x.pid");
                fs::write(&pid, "1").unwrap();
                tried.read_only("rename", rustix::fs::rename(&pid, job.join("foo.lock")));
                tried.read_only("rename", rustix::fs::rename(&pid, job.join("new.lock")));
                tried.read_only("link", rustix::fs::link(&pid, job.join("new.lock")));
                let linked = rustix::fs::link(job.join("foo.lock"), job.join("y.pid"));
                tried.read_only("link", linked);
                fs::create_dir(job.join(".scheduler")).unwrap();
                let renamed = rustix::fs::rename(job.join(".scheduler"), job.join("z.pid"));
                tried.read_only("rename of a directory", renamed);
                // Among themselves they are what they were.
                fs::rename(job.join("foo.lock"), job.join("other.lock")).unwrap();
                fs::rename(&pid, job.join("train.pid")).unwrap();
            }
        });
        assert!(tried.wrong.is_empty(), "{:#?}", tried.wrong);
        mounted.unmount();
        assert_same(&before, &folders(workspace));
    });
}
