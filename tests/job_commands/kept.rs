//! All that a job is made of comes back from a folder.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::common::program;
use super::common::run;
use super::stage::{
    HASH, Stage, TASK, Tree, assert_tree, job_id, moment, said, set_time, whole, write_job,
};
use super::tree::bytes;

/// A job with all that a disk can hold, as far as this user may make it.
fn everything(job: &Path) -> Tree {
    write_job(job);
    odd_names(job);
    let mut deep = job.join("deep");
    for level in 0..100 {
        deep.push(format!("level-{level:020}"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "bottom").unwrap();
    fs::hard_link(deep.join("bottom"), job.join("top")).unwrap();
    for name in [
        "poetry.lock",
        "data/empty.lock",
        "data/train.lock",
        "data/a.pid",
        "no-rights",
    ] {
        fs::write(
            job.join(name),
            if name.contains("empty") { "" } else { "x" },
        )
        .unwrap();
    }
    fs::create_dir_all(job.join("none/in/it")).unwrap();
    let holes = File::create(job.join("holes")).unwrap();
    holes.set_len((64 << 20) + 5).unwrap();
    for at in [0, 20 << 20, (64 << 20) + 1] {
        holes.write_all_at(b"data", at).unwrap();
    }
    File::create(job.join("only-hole"))
        .unwrap()
        .set_len(1 << 27)
        .unwrap();
    symlink("/etc/passwd", job.join("outside")).unwrap();
    symlink("../../../..", job.join("above")).unwrap();
    symlink(bytes(b"\xff\n"), job.join("odd-target")).unwrap();
    let fifo = Mode::from_raw_mode(0o620);
    rustix::fs::mknodat(CWD, job.join("fifo"), FileType::Fifo, fifo, 0).unwrap();
    attributes(job);
    set_time(&job.join("uv.lock"), moment(3));
    whole(job).unwrap()
}

fn odd_names(job: &Path) {
    let names: [&[u8]; 9] = [
        b"new\nline",
        b" ",
        b"\\",
        b"-rf",
        b"\xff\x01",
        b"...",
        b".tmp.x",
        "\u{202e}umop".as_bytes(),
        &[b'x'; 255],
    ];
    for name in names {
        let dir = job.join("odd").join(bytes(name));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(bytes(name)), name).unwrap();
    }
}

fn attributes(job: &Path) {
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    set(&job.join("data"), "user.on.directory", b"\0binary\xff");
    set(job, "user.on.the.top", b"kept");
    set(&job.join("uv.lock"), "user.large", &[b'l'; 2000]);
    if rustix::process::geteuid().is_root() {
        set(&job.join("uv.lock"), "trusted.root", b"alone");
        lchown(job.join("poetry.lock"), Some(1234), Some(4321)).unwrap();
        lchown(job.join("outside"), Some(1234), Some(4321)).unwrap();
    }
    if program("setfacl").is_some() {
        let mut acl = Command::new("setfacl");
        run(acl
            .args(["-m", "u:1234:rw,g:4321:r"])
            .arg(job.join("params.json")));
        let mut acl = Command::new("setfacl");
        run(acl.args(["-d", "-m", "u:1234:rwx"]).arg(job.join("none")));
    }
    let modes = [
        ("poetry.lock", 0o6755),
        ("none/in", 0o1777),
        ("no-rights", 0o0),
        ("odd", 0o2700),
    ];
    for (name, mode) in modes {
        fs::set_permissions(job.join(name), Permissions::from_mode(mode)).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(job.join("none/in/it"), Permissions::from_mode(0o0)).unwrap();
    }
}

fn recover(stage: &Stage, arguments: &[&str]) {
    let job = job_id();
    let output = stage.jobs(&[&["recover", &job], arguments].concat());
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn all_of_a_job_comes_back_from_a_backup() {
    let stage = Stage::on_disk(&["backup"]);
    let job = everything(&stage.job());
    stage.archive();
    assert_tree("the copy", &job, whole(&stage.archived("backup")).as_ref());
    stage.verify();
    fs::remove_dir_all(stage.job()).unwrap();
    recover(&stage, &[]);
    assert_tree("the job", &job, whole(&stage.job()).as_ref());
    // And nothing seems to have changed.
    stage.archive();
    stage.verify();
    stage.assert_clean();
    assert!(!stage.job().join("train.pid").exists());
}

#[test]
fn all_of_a_job_is_there_when_it_has_moved_and_comes_back() {
    let stage = Stage::on_disk(&["backup", "move"]);
    let job = everything(&stage.job());
    stage.archive();
    assert!(stage.job().is_symlink());
    assert_tree("the job", &job, whole(&stage.job()).as_ref());
    stage.verify();
    recover(&stage, &["--from", stage.folder("move").to_str().unwrap()]);
    assert!(!stage.job().is_symlink());
    assert_tree("the job", &job, whole(&stage.job()).as_ref());
    // It stays, as was asked for.
    stage.archive();
    assert!(!stage.job().is_symlink());
    stage.verify();
    stage.assert_clean();
    // Until it changes.
    fs::write(stage.job().join("note"), "new").unwrap();
    let job = whole(&stage.job()).unwrap();
    stage.archive();
    assert!(stage.job().is_symlink());
    for mode in stage.modes() {
        assert_tree(mode, &job, whole(&stage.archived(mode)).as_ref());
    }
    stage.verify();
    stage.assert_clean();
}

/// Neither names nor contents of a job that only its owner may read are for others to read in a folder, whatever the umask.
#[test]
fn what_is_private_stays_private() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for umask in ["000", "077"] {
        for (task_rights, job_rights, manifest_rights) in [
            (0o700, 0o755, 0o644),
            (0o755, 0o700, 0o600),
            (0o755, 0o775, 0o664),
        ] {
            let stage = Stage::on_disk(&["backup"]);
            let (job, folder) = (stage.job(), stage.folder("backup"));
            write_job(&job);
            fs::create_dir_all(folder.join("jobs")).unwrap();
            set(&folder.join("jobs"), 0o755);
            set(&job, job_rights);
            set(job.parent().unwrap(), task_rights);
            let settings = stage.settings();
            let archive = "umask $0; exec \"$1\" --settings \"$2\" jobs archive --all";
            let program = env!("CARGO_BIN_EXE_xpmfs");
            run(Command::new("sh")
                .args(["-c", archive, umask, program])
                .arg(settings));
            let copy = stage.archived("backup");
            let manifests = folder.join(".xpmfs/manifests").join(TASK);
            let found = [
                mode(copy.parent().unwrap()),
                mode(&copy),
                mode(&manifests.join(format!("{HASH}.json"))),
            ];
            let rights = [task_rights, job_rights, manifest_rights];
            assert_eq!(found, rights, "with umask {umask}");
        }
    }
}

#[test]
fn holes_take_no_space_in_a_folder() {
    use std::os::unix::fs::MetadataExt;
    let stage = Stage::on_disk(&["backup"]);
    everything(&stage.job());
    stage.archive();
    for name in ["holes", "only-hole", "data/sparse"] {
        let blocks = fs::metadata(stage.archived("backup").join(name))
            .unwrap()
            .blocks();
        assert!(blocks < 128, "{name}: {blocks}");
    }
}
