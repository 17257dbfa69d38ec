//! Jobs that a folder serves are immutable through the view, whatever is done to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fixture::{FOLDERS, Workspace, as_nobody, eventually, names, run, snapshot};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags,
    Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

const TASK: &str = "my.module.train";

/// A job in every location, called after it, with something of everything in it.
fn one_job_each(workspace: &Workspace) {
    for location in ["primary", "use", "backup", "move"] {
        let job = workspace.finished(location, TASK, &format!("in-{location}"));
        fs::create_dir_all(job.join("data/deep")).unwrap();
        fs::create_dir(job.join("empty")).unwrap();
        fs::write(job.join("data/deep/file"), "deep").unwrap();
        fs::write(job.join("uv.lock"), "version = 1\n").unwrap();
        fs::write(job.join("train.py"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(job.join("train.py"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("model.bin", job.join("latest")).unwrap();
        fs::hard_link(job.join("model.bin"), job.join("linked")).unwrap();
        rustix::fs::setxattr(
            job.join("train.out"),
            "user.note",
            b"x",
            XattrFlags::empty(),
        )
        .unwrap();
    }
    workspace.give_away();
}

fn folders(workspace: &Workspace) -> Vec<Vec<String>> {
    FOLDERS
        .iter()
        .map(|folder| snapshot(&workspace.folder(folder)))
        .collect()
}

/// Asserts that nothing has changed, and says what has.
fn assert_same(before: &[Vec<String>], after: &[Vec<String>]) {
    for (before, after) in before.iter().zip(after) {
        // Contents can be long.
        let missing = |from: &[String], of: &[String]| -> Vec<String> {
            let missing = of.iter().filter(|line| !from.contains(line));
            missing
                .map(|line| line.chars().take(200).collect())
                .collect()
        };
        let (changed, gone) = (missing(before, after), missing(after, before));
        assert!(
            changed.is_empty() && gone.is_empty(),
            "changed: {changed:#?}\nwas: {gone:#?}"
        );
    }
}

/// Does something in a workspace of root's, if we are root, and in one of an ordinary user's.
fn as_everyone(test: impl Fn(&Workspace)) {
    if rustix::process::geteuid().is_root() {
        test(&Workspace::new());
    }
    test(&Workspace::of_ordinary_user());
}

/// What has been tried, and what was wrong with the answers.
#[derive(Default)]
struct Attempts {
    made: usize,
    wrong: Vec<String>,
}

impl Attempts {
    fn refused<T>(&mut self, what: &str, with: &[Errno], result: Result<T>) {
        self.made += 1;
        match result {
            Err(error) if with.contains(&error) => {}
            Err(error) => self.wrong.push(format!("{what}: {error:?}, not {with:?}")),
            Ok(_) => self.wrong.push(format!("{what}: succeeded")),
        }
    }

    fn read_only<T>(&mut self, what: &str, result: Result<T>) {
        self.refused(what, &[Errno::ROFS], result);
    }
}

/// The paths of one attack: the mount, a job in the primary, an archived job.
struct Scene<'a> {
    mount: &'a Path,
    own: &'a Path,
    job: &'a Path,
}

const RWX: Mode = Mode::from_raw_mode(0o777);

fn open(path: &Path, flags: OFlags) -> Result<std::os::fd::OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, RWX)
}

fn now() -> Timestamps {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    Timestamps {
        last_access: now,
        last_modification: now,
    }
}

fn opening_for_writing(scene: &Scene<'_>, tried: &mut Attempts) {
    let (write, read) = (OFlags::WRONLY, OFlags::RDONLY);
    for name in [
        "model.bin",
        "uv.lock",
        "data/deep/file",
        "latest",
        "train.done",
    ] {
        let path = scene.job.join(name);
        for flags in [
            write,
            OFlags::RDWR,
            read | OFlags::TRUNC,
            write | OFlags::TRUNC,
            write | OFlags::APPEND,
            write | OFlags::CREATE,
            OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC,
        ] {
            tried.read_only(&format!("open {name} {flags:?}"), open(&path, flags));
        }
    }
    for name in [
        "new",
        "data/new",
        "train.failed",
        "new.lock.bak",
        ".experimaestro/new",
    ] {
        let path = scene.job.join(name);
        let flags = write | OFlags::CREATE | OFlags::EXCL;
        tried.read_only(&format!("create {name}"), open(&path, flags));
    }
    // By another way to a file that is open for reading.
    let file = File::open(scene.job.join("model.bin")).unwrap();
    let magic = PathBuf::from(format!("/proc/thread-self/fd/{}", file.as_raw_fd()));
    tried.read_only("reopen", open(&magic, write));
    tried.read_only("reopen and truncate", open(&magic, write | OFlags::TRUNC));
    let temporary = open(scene.job, write | OFlags::TMPFILE);
    tried.refused("O_TMPFILE", &[Errno::OPNOTSUPP, Errno::ROFS], temporary);
}

fn making_and_linking(scene: &Scene<'_>, tried: &mut Attempts) {
    for dir in ["", "data", "empty", ".experimaestro"] {
        let dir = scene.job.join(dir);
        let new = dir.join("new");
        let shown = new.display();
        tried.read_only(&format!("mkdir {shown}"), rustix::fs::mkdir(&new, RWX));
        for kind in [FileType::RegularFile, FileType::Fifo, FileType::Socket] {
            let made = rustix::fs::mknodat(CWD, &new, kind, RWX, 0);
            tried.read_only(&format!("mknod {shown} {kind:?}"), made);
        }
        tried.read_only("symlink", rustix::fs::symlink("/etc/passwd", &new));
        let own = scene.own.join("model.bin");
        tried.read_only("link into", rustix::fs::link(own, &new));
    }
    let taken = rustix::fs::mkdir(scene.job, RWX);
    tried.refused("mkdir of the job", &[Errno::EXIST], taken);
    let model = scene.job.join("model.bin");
    for to in [scene.mount.join("stolen"), scene.own.join("stolen")] {
        tried.read_only("link out", rustix::fs::link(&model, &to));
        let file = File::open(&model).unwrap();
        let magic = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
        let follow = AtFlags::SYMLINK_FOLLOW;
        let linked = rustix::fs::linkat(CWD, &magic, CWD, &to, follow);
        tried.read_only("link out by descriptor", linked);
    }
    tried.read_only(
        "link within",
        rustix::fs::link(&model, scene.job.join("new")),
    );
}

fn removing_and_renaming(scene: &Scene<'_>, tried: &mut Attempts) {
    let at = |name: &str| scene.job.join(name);
    for name in [
        "model.bin",
        "latest",
        "uv.lock",
        "train.done",
        "data/deep/file",
    ] {
        tried.read_only(&format!("unlink {name}"), rustix::fs::unlink(at(name)));
    }
    for name in ["empty", "data", ".experimaestro", ""] {
        tried.read_only(&format!("rmdir {name}"), rustix::fs::rmdir(at(name)));
    }
    let task = scene.job.parent().unwrap();
    tried.read_only("rmdir of the task", rustix::fs::rmdir(task));
    let own = |name: &str| scene.own.join(name);
    let elsewhere = scene.mount.join("elsewhere");
    let exchange = RenameFlags::EXCHANGE;
    let plain = RenameFlags::empty();
    let noreplace = RenameFlags::NOREPLACE;
    let occupied = &[Errno::ROFS, Errno::NOTEMPTY][..];
    let read_only = &[Errno::ROFS][..];
    for (from, to, flags, with) in [
        // Away, within, and over.
        (at("model.bin"), elsewhere.clone(), plain, read_only),
        (at("model.bin"), own("new"), plain, read_only),
        (at("model.bin"), at("new"), plain, read_only),
        (at("model.bin"), at("data/new"), noreplace, read_only),
        (at("model.bin"), at("train.out"), plain, read_only),
        (at("model.bin"), at("train.out"), exchange, read_only),
        (at("model.bin"), at("train.out"), noreplace, &[Errno::EXIST]),
        (at("model.bin"), at("model.lock"), plain, read_only),
        (at("model.bin"), at("model.pid"), noreplace, read_only),
        (at("data"), elsewhere.clone(), plain, read_only),
        (at("data"), at("empty"), plain, occupied),
        (at(""), elsewhere.clone(), plain, read_only),
        (at(""), task.join("renamed"), plain, read_only),
        (at(""), task.join("renamed"), noreplace, read_only),
        (at(""), own(""), exchange, read_only),
        (at(""), own("empty"), plain, read_only),
        (task.into(), elsewhere.clone(), plain, read_only),
        (task.into(), task.with_file_name("other"), plain, read_only),
        // Into.
        (own("model.bin"), at("new"), plain, read_only),
        (own("model.bin"), at("new"), noreplace, read_only),
        (own("model.bin"), at("model.bin"), plain, read_only),
        (own("model.bin"), at("model.bin"), exchange, read_only),
        (own("model.bin"), at("data/deep/file"), plain, read_only),
        (own("model.bin"), at("my.lock"), plain, read_only),
        (own("data"), at("new"), plain, read_only),
        (own("data"), at("empty"), plain, occupied),
        (own("data"), at("data"), exchange, read_only),
        (own(""), at(""), plain, occupied),
        (own(""), at(""), exchange, read_only),
        (own(""), at("data/new"), plain, read_only),
    ] {
        let what = format!("rename {} {} {flags:?}", from.display(), to.display());
        let renamed = rustix::fs::renameat_with(CWD, &from, CWD, &to, flags);
        tried.refused(&what, with, renamed);
    }
}

fn changing_attributes(scene: &Scene<'_>, tried: &mut Attempts) {
    let mode = Mode::from_raw_mode(0o4777);
    for name in [
        "",
        "model.bin",
        "uv.lock",
        "data",
        "data/deep/file",
        "empty",
        "train.py",
    ] {
        let path = scene.job.join(name);
        tried.read_only(&format!("chmod {name}"), rustix::fs::chmod(&path, mode));
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let (uid, gid) = (Uid::from_raw(uid.as_raw()), Gid::from_raw(gid.as_raw()));
        let owned = rustix::fs::chownat(CWD, &path, Some(uid), Some(gid), AtFlags::empty());
        tried.read_only(&format!("chown {name}"), owned);
        let timed = rustix::fs::utimensat(CWD, &path, &now(), AtFlags::empty());
        tried.read_only(&format!("utimes {name}"), timed);
        let set = rustix::fs::setxattr(&path, "user.new", b"1", XattrFlags::empty());
        tried.read_only(&format!("setxattr {name}"), set);
        let file = open(&path, OFlags::RDONLY).unwrap();
        tried.read_only(&format!("fchmod {name}"), rustix::fs::fchmod(&file, mode));
        let owned = rustix::fs::fchown(&file, Some(uid), Some(gid));
        tried.read_only(&format!("fchown {name}"), owned);
        tried.read_only(
            &format!("futimens {name}"),
            rustix::fs::futimens(&file, &now()),
        );
        let set = rustix::fs::fsetxattr(&file, "user.new", b"1", XattrFlags::empty());
        tried.read_only(&format!("fsetxattr {name}"), set);
    }
    let out = scene.job.join("train.out");
    tried.read_only("removexattr", rustix::fs::removexattr(&out, "user.note"));
    let ours = rustix::fs::setxattr(&out, "user.xpmfs.location", b"1", XattrFlags::empty());
    tried.refused("setxattr of ours", &[Errno::PERM], ours);
    let latest = scene.job.join("latest");
    let timed = rustix::fs::utimensat(CWD, &latest, &now(), AtFlags::SYMLINK_NOFOLLOW);
    tried.read_only("utimes of a symlink", timed);
}

fn through_descriptors_for_reading(scene: &Scene<'_>, tried: &mut Attempts) {
    let path = scene.job.join("model.bin");
    let file = open(&path, OFlags::RDONLY).unwrap();
    let own = open(&scene.own.join("train.out"), OFlags::RDWR).unwrap();
    let unfit = &[Errno::BADF, Errno::INVAL, Errno::ROFS][..];
    tried.refused("write", unfit, rustix::io::write(&file, b"x"));
    tried.refused("pwrite", unfit, rustix::io::pwrite(&file, b"x", 0));
    tried.refused("ftruncate", unfit, rustix::fs::ftruncate(&file, 0));
    for mode in [
        FallocateFlags::empty(),
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
    ] {
        let allocated = rustix::fs::fallocate(&file, mode, 0, 4096);
        tried.refused("fallocate", unfit, allocated);
    }
    let copied = rustix::fs::copy_file_range(&own, None, &file, None, 5);
    tried.refused("copy_file_range", unfit, copied);
    // Reading, and locking what is open for that, is nobody's harm.
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).unwrap();
    rustix::fs::fsync(&file).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [7; 10_000]);
}

fn attack(scene: &Scene<'_>, tried: &mut Attempts) {
    opening_for_writing(scene, tried);
    making_and_linking(scene, tried);
    removing_and_renaming(scene, tried);
    changing_attributes(scene, tried);
    through_descriptors_for_reading(scene, tried);
}

#[test]
fn no_system_call_changes_an_archived_job() {
    as_everyone(|workspace| {
        one_job_each(workspace);
        let elsewhere = workspace.mountpoint("elsewhere");
        let before = folders(workspace);
        let jobs = snapshot(&workspace.primary().join("jobs"));
        for mountpoint in [workspace.primary(), elsewhere] {
            let mounted = workspace.mount_at(&mountpoint);
            let own = mounted.job(TASK, "in-primary");
            let mut tried = Attempts::default();
            workspace.as_user(|| {
                for folder in FOLDERS {
                    let scene = Scene {
                        mount: mounted.path(),
                        own: &own,
                        job: &mounted.job(TASK, &format!("in-{folder}")),
                    };
                    attack(&scene, &mut tried);
                }
            });
            assert!(tried.wrong.is_empty(), "{:#?}", tried.wrong);
            assert!(tried.made > 500, "{} attempts", tried.made);
            mounted.unmount();
            assert_same(&before, &folders(workspace));
        }
        assert_same(&[jobs], &[snapshot(&workspace.primary().join("jobs"))]);
    });
}

/// Where the kernel checks rights, it must not be these that save an archive.
#[test]
fn an_archived_job_that_anybody_may_write_is_not_changed_by_others() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    let workspace = Workspace::new();
    one_job_each(&workspace);
    run(Command::new("chmod")
        .args(["-R", "a+rwX"])
        .arg(workspace.top()));
    let before = folders(&workspace);
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, &["-o", "allow_other"]);
    let mut tried = Attempts::default();
    as_nobody(|| {
        let attributes = &[Errno::PERM, Errno::ROFS][..];
        for folder in FOLDERS {
            let job = mounted.job(TASK, &format!("in-{folder}"));
            let own = mounted.job(TASK, "in-primary");
            let scene = Scene {
                mount: &elsewhere,
                own: &own,
                job: &job,
            };
            opening_for_writing(&scene, &mut tried);
            removing_and_renaming(&scene, &mut tried);
            let mode = rustix::fs::chmod(job.join("model.bin"), RWX);
            tried.refused("chmod", attributes, mode);
            let timed = rustix::fs::utimensat(CWD, &job, &now(), AtFlags::empty());
            tried.refused("utimes", attributes, timed);
            let made = rustix::fs::mkdir(job.join("data/new"), RWX);
            tried.refused("mkdir", attributes, made);
            let set = rustix::fs::setxattr(&job, "user.new", b"1", XattrFlags::empty());
            tried.refused("setxattr", attributes, set);
        }
    });
    assert!(tried.wrong.is_empty(), "{:#?}", tried.wrong);
    mounted.unmount();
    assert_same(&before, &folders(&workspace));
}

/// What people type. `$J` is an archived job, `$P` one in the primary, `$M` the mount.
const COMMANDS: &[&str] = &[
    "rm -rf $J",
    "rm -f $J/model.bin",
    "rmdir $J/empty",
    "find $J -delete",
    "shred -u $J/model.bin",
    "mv $J/model.bin $J/other",
    "mv $J/model.bin $M/stolen",
    "mv $J $T/renamed",
    "mv $J $M/stolen",
    "mv $T $M/stolen",
    "mv -T $P $J",
    "mv $P/model.bin $J/",
    "mv $P/data $J/data",
    "cp $P/train.out $J/model.bin",
    "cp --remove-destination $P/train.out $J/model.bin",
    "cp -r $P/data $J/new",
    "install $P/train.out $J/new",
    "chmod -R a+x $J",
    "chown -R $(id -u):$(id -g) $J",
    "touch $J/model.bin",
    "touch $J",
    "touch -h $J/latest",
    "touch $J/new",
    "echo x > $J/model.bin",
    "echo x >> $J/model.bin",
    ": > $J/model.bin",
    ": > $J/new",
    "echo x | tee $J/train.out",
    "truncate -s 0 $J/model.bin",
    "truncate -s 20K $J/model.bin",
    "dd if=/dev/zero of=$J/model.bin bs=1 count=1 conv=notrunc",
    "fallocate -l 20K $J/model.bin",
    "fallocate -p -o 0 -l 4096 $J/model.bin",
    "ln $J/model.bin $M/link",
    "ln $P/model.bin $J/link",
    "ln -s x $J/link",
    "ln -sfn x $J/latest",
    "mkdir $J/new",
    "mkdir -p $J/data/new/deeper",
    "mkfifo $J/new",
    "mknod $J/new p",
    "setfattr -n user.new -v 1 $J/model.bin",
    "setfattr -x user.note $J/train.out",
    "setfacl -m u:1:r $J/model.bin",
    "setfacl -R -b -m u:1:rwx $J",
    "sed -i s/step/x/ $J/train.out",
    "mkdir $M/void; rsync -a --delete $M/void/ $J/; s=$?; rmdir $M/void; exit $s",
    "rsync -aI $P/ $J/",
    "tar -C $P -c data | tar -C $J -x",
    r#"py 'import os; os.truncate(J + "/model.bin", 0)'"#,
    r#"py 'import shutil; shutil.rmtree(J)'"#,
    r#"py 'import os; os.replace(P + "/model.bin", J + "/model.bin")'"#,
    r#"py 'import pathlib; pathlib.Path(J, "model.bin").write_text("")'"#,
    r#"py 'import mmap; mmap.mmap(open(J + "/model.bin", "r+").fileno(), 0)[0] = 1'"#,
    r#"py 'import mmap; f = open(J + "/model.bin"); mmap.mmap(f.fileno(), 0)[0] = 1'"#,
];

/// What such a command may say.
const EXCUSES: &[&str] = &[
    "Read-only file system",
    "Directory not empty",
    // mmap for writing of what is open for reading.
    "Permission denied",
    // Where the kernel is to check ACLs only with allow_other.
    "Operation not supported",
];

/// Runs Python with the paths as variables.
const PY: &str = r#"py() {
    /usr/bin/python3 -c 'import os, sys; M, P, J = (os.environ[v] for v in "MPJ"); exec(sys.argv[1])' "$1"
}"#;

fn shell(workspace: &Workspace, mount: &Path, job: &Path, script: &str) -> Command {
    let script = format!("{PY}\n{script}");
    let mut command = workspace.command("sh");
    command
        .args(["-c", &script])
        .env("LC_ALL", "C")
        .env("M", mount)
        .env("T", job.parent().unwrap())
        .env("P", job.with_file_name("in-primary"))
        .env("J", job);
    command
}

#[test]
fn no_command_changes_an_archived_job() {
    as_everyone(|workspace| {
        one_job_each(workspace);
        let before = folders(workspace);
        let jobs = snapshot(&workspace.primary().join("jobs"));
        let mounted = workspace.mount_in_place();
        let mut wrong = Vec::new();
        for folder in FOLDERS {
            let job = mounted.job(TASK, &format!("in-{folder}"));
            for command in COMMANDS {
                let mut shell = shell(workspace, mounted.path(), &job, command);
                let output = shell.output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                let excused = EXCUSES.iter().any(|excuse| said.contains(excuse));
                if output.status.success() || !excused {
                    wrong.push(format!("{command}: {}, {said}", output.status));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        mounted.unmount();
        assert_same(&before, &folders(workspace));
        assert_same(&[jobs], &[snapshot(&workspace.primary().join("jobs"))]);
    });
}

#[test]
fn destroying_the_whole_view_destroys_the_primarys_jobs_alone() {
    as_everyone(|workspace| {
        for command in [
            "rm -rf $M/jobs",
            "py 'import shutil; shutil.rmtree(M + \"/jobs\", ignore_errors=True)'; exit 1",
            "cd $M && git -c safe.directory='*' init -q && \
             git -c safe.directory='*' clean -ffdxq jobs; s=$?; rm -rf .git; exit $s",
            "mkdir $M/void; rsync -a --delete $M/void/ $M/jobs/; s=$?; rmdir $M/void; exit $s",
            "find $M/jobs -delete",
            "mv $M/jobs $M/gone",
        ] {
            let task = workspace.primary().join("jobs").join(TASK);
            let _ = fs::remove_dir_all(&task);
            for folder in FOLDERS {
                let _ = fs::remove_dir_all(workspace.folder(folder).join("jobs").join(TASK));
            }
            one_job_each(workspace);
            let before = folders(workspace);
            let mounted = workspace.mount_in_place();
            let job = mounted.job(TASK, "in-use");
            let output = shell(workspace, mounted.path(), &job, command)
                .output()
                .unwrap();
            assert!(!output.status.success(), "{command}: {output:?}");
            workspace.as_user(|| {
                let jobs = names(&mounted.path().join("jobs").join(TASK));
                let gone = !jobs.contains(&"in-primary".into());
                assert_eq!(gone, !command.starts_with("mv"), "{command}: {output:?}");
                for folder in FOLDERS {
                    let job = mounted.job(TASK, &format!("in-{folder}"));
                    assert_eq!(fs::read(job.join("data/deep/file")).unwrap(), b"deep");
                    let own = mounted.location(&job);
                    assert_eq!(own, folder, "after {command}");
                }
            });
            mounted.unmount();
            assert_same(&before, &folders(workspace));
        }
    });
}

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

#[test]
fn the_state_of_xpmfs_never_appears() {
    as_everyone(|workspace| {
        one_job_each(workspace);
        for exists in [false, true] {
            if exists {
                fs::create_dir(workspace.primary().join(".xpmfs")).unwrap();
                fs::write(workspace.primary().join(".xpmfs/secret"), "x").unwrap();
                workspace.give_away();
            }
            let elsewhere = workspace.mountpoint(&format!("elsewhere-{exists}"));
            let mounted = workspace.mount_at(&elsewhere);
            let hidden = mounted.path().join(".xpmfs");
            let file = mounted.path().join("file");
            let mut tried = Attempts::default();
            let taken = &[Errno::PERM, Errno::NOENT][..];
            workspace.as_user(|| {
                fs::write(&file, "").unwrap();
                let gone = &[Errno::NOENT];
                tried.refused("stat", gone, rustix::fs::lstat(&hidden));
                tried.refused("stat", gone, rustix::fs::stat(hidden.join("secret")));
                tried.refused(
                    "stat",
                    gone,
                    rustix::fs::stat(elsewhere.join("jobs/../.xpmfs/")),
                );
                tried.refused("open", gone, open(&hidden, OFlags::RDONLY));
                tried.refused("rmdir", gone, rustix::fs::rmdir(&hidden));
                tried.refused(
                    "rename",
                    gone,
                    rustix::fs::rename(&hidden, elsewhere.join("x")),
                );
                tried.refused("mkdir", taken, rustix::fs::mkdir(&hidden, RWX));
                let create = OFlags::RDWR | OFlags::CREATE;
                tried.refused("create", taken, open(&hidden, create));
                tried.refused("symlink", taken, rustix::fs::symlink("x", &hidden));
                tried.refused("link", taken, rustix::fs::link(&file, &hidden));
                let fifo = rustix::fs::mknodat(CWD, &hidden, FileType::Fifo, RWX, 0);
                tried.refused("mknod", taken, fifo);
                for flags in [RenameFlags::empty(), RenameFlags::NOREPLACE] {
                    let renamed = rustix::fs::renameat_with(CWD, &file, CWD, &hidden, flags);
                    tried.refused("rename to", taken, renamed);
                }
                let exchanged =
                    rustix::fs::renameat_with(CWD, &file, CWD, &hidden, RenameFlags::EXCHANGE);
                tried.refused("exchange", taken, exchanged);
                assert_eq!(names(&elsewhere), [".__experimaestro__", "file", "jobs"]);
            });
            assert!(tried.wrong.is_empty(), "{:#?}", tried.wrong);
            mounted.unmount();
            assert_eq!(workspace.primary().join(".xpmfs/secret").exists(), exists);
        }
    });
}

#[test]
fn what_a_copy_grows_in_never_appears() {
    as_everyone(|workspace| {
        one_job_each(workspace);
        for folder in FOLDERS {
            let task = workspace.folder(folder).join("jobs").join(TASK);
            fixture::write_job(&task.join(".tmp.abc"), TASK);
            fs::write(task.join(".tmp.abc.lock"), "").unwrap();
            let jobs = task.parent().unwrap();
            fixture::write_job(&jobs.join(".tmp.task/abc"), "tmp.task");
        }
        workspace.give_away();
        let mounted = workspace.mount_in_place();
        workspace.as_user(|| {
            let jobs = mounted.path().join("jobs");
            assert_eq!(names(&jobs), [TASK]);
            let all = ["in-backup", "in-move", "in-primary", "in-use"];
            assert_eq!(names(&jobs.join(TASK)), all);
            for name in [".tmp.task", ".tmp.task/abc", "my.module.train/.tmp.abc"] {
                let found = rustix::fs::lstat(jobs.join(name)).map(|_| ());
                assert_eq!(found, Err(Errno::NOENT), "{name}");
            }
        });
    });
}

#[test]
fn the_primarys_copy_can_go_and_new_jobs_go_to_the_primary() {
    as_everyone(|workspace| {
        workspace.finished("backup", TASK, "both");
        let copy = workspace.finished("primary", TASK, "both");
        fs::write(copy.join("train.out"), "newer").unwrap();
        let before = folders(workspace);
        let mounted = workspace.mount_in_place();
        let job = mounted.job(TASK, "both");
        workspace.as_user(|| {
            assert_eq!(mounted.location(&job), "primary");
            fs::remove_dir_all(&job).unwrap();
            eventually("the folder's copy", || {
                fs::read(job.join("train.out")).is_ok_and(|out| out == b"step 1\nstep 2\n")
            });
            assert_eq!(mounted.location(&job), "backup");
            let removed = fs::remove_dir_all(&job).unwrap_err();
            assert_eq!(removed.raw_os_error(), Some(libc::EROFS));
        });
        mounted.unmount();
        // Neither `jobs/` nor the task's directory are in the primary.
        fs::remove_dir_all(workspace.primary().join("jobs")).unwrap();
        let mounted = workspace.mount_in_place();
        workspace.as_user(|| {
            for (task, hash) in [(TASK, "new"), ("my.module.other", "new"), (TASK, "newer")] {
                let new = mounted.job(task, hash);
                fs::create_dir_all(&new).unwrap();
                fs::write(new.join("file"), "x").unwrap();
                assert_eq!(mounted.location(new.join("file")), "primary");
            }
            assert_eq!(
                names(&mounted.path().join("jobs").join(TASK)),
                ["both", "new", "newer"]
            );
        });
        mounted.unmount();
        let beneath = workspace.primary().join("jobs");
        assert_eq!(names(&beneath), ["my.module.other", TASK]);
        assert_eq!(names(&beneath.join(TASK)), ["new", "newer"]);
        assert_same(&before, &folders(workspace));
    });
}
