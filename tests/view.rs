//! The rules of the view, without FUSE: which location serves a job, and what is listed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, RawDir};
use tempfile::TempDir;
use xpmfs::settings::Mode;
use xpmfs::view::{FolderSpec, Served, View, ViewSpec};

const TASK: &str = "my.module.train";

/// A workspace with a `use`, a `backup` and a `move` folder, in that order.
struct Disk {
    top: TempDir,
}

impl Disk {
    fn new() -> Disk {
        let top = tempfile::tempdir().unwrap();
        for location in ["primary", "use", "backup", "move"] {
            fs::create_dir_all(top.path().join(location).join("jobs")).unwrap();
        }
        Disk { top }
    }

    fn path(&self, location: &str) -> PathBuf {
        self.top.path().canonicalize().unwrap().join(location)
    }

    fn job_path(&self, location: &str, hash: &str) -> PathBuf {
        self.path(location).join("jobs").join(TASK).join(hash)
    }

    fn job(&self, location: &str, hash: &str) -> PathBuf {
        let job = self.job_path(location, hash);
        fs::create_dir_all(&job).unwrap();
        fs::write(job.join("params.json"), "{}").unwrap();
        job
    }

    fn finished(&self, location: &str, hash: &str) -> PathBuf {
        let job = self.job(location, hash);
        fs::write(job.join("train.done"), "").unwrap();
        job
    }

    /// A symlink in place of a job of the primary.
    fn link(&self, hash: &str, target: impl AsRef<Path>) {
        let link = self.job_path("primary", hash);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(target, link).unwrap();
    }

    /// A job in the `move` folder, with its symlink in the primary.
    fn moved(&self, hash: &str) {
        let job = self.finished("move", hash);
        self.link(hash, job);
    }

    fn view(&self) -> View {
        self.view_with(&[
            (Mode::Use, "use"),
            (Mode::Backup, "backup"),
            (Mode::Move, "move"),
        ])
    }

    fn view_with(&self, folders: &[(Mode, &str)]) -> View {
        self.open(folders).unwrap()
    }

    fn open(&self, folders: &[(Mode, &str)]) -> Result<View, xpmfs::view::ViewError> {
        let folder = |(mode, location): &(Mode, &str)| FolderSpec {
            mode: *mode,
            path: self.path(location),
        };
        let spec = ViewSpec {
            workspace: "test".to_owned(),
            primary: self.path("primary"),
            folders: folders.iter().map(folder).collect(),
            mountpoint: None,
        };
        View::open(spec, None)
    }
}

/// Where a job is served from, as `user.xpmfs.location` says, without the path.
fn served(view: &View, hash: &str) -> String {
    match view.resolve(OsStr::new(TASK), OsStr::new(hash)).unwrap() {
        None => "nothing".to_owned(),
        Some(Served::AsItIs { location, .. }) => format!("as it is in {location}"),
        Some(Served::Job { location, .. }) => {
            let label = view.location(location).unwrap().label();
            let label = String::from_utf8(label).unwrap();
            label.split(':').next().unwrap().to_owned()
        }
    }
}

/// What `jobs/<TASK>/` shows: each name once, or the test fails.
fn listed(view: &View) -> BTreeMap<String, FileType> {
    let mut shown = BTreeMap::new();
    let task = OsStr::new(TASK);
    for source in view.task_sources(task).unwrap() {
        for (name, kind) in entries(&source.dir) {
            let entry = OsStr::new(&name);
            if let Some(entry) = view.shows_in_task(source.location, task, entry, kind) {
                let before = shown.insert(name.clone(), entry.kind);
                assert!(before.is_none(), "{name} twice");
            }
        }
    }
    shown
}

fn entries(dir: impl std::os::fd::AsFd) -> Vec<(String, FileType)> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let dir = rustix::fs::openat(dir, ".", flags, rustix::fs::Mode::empty()).unwrap();
    let mut buffer = Vec::with_capacity(8192);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap().to_owned();
        if name != "." && name != ".." {
            found.push((name, entry.file_type()));
        }
    }
    found
}

fn names(view: &View) -> Vec<String> {
    listed(view).into_keys().collect()
}

fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "it never came to be");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_primary_comes_before_the_folders_and_they_in_their_order() {
    let disk = Disk::new();
    for location in ["primary", "use", "backup"] {
        disk.finished(location, "everywhere");
    }
    disk.finished("use", "folders");
    disk.finished("backup", "folders");
    disk.finished("backup", "archived");
    let view = disk.view();
    assert_eq!(served(&view, "everywhere"), "primary");
    assert_eq!(served(&view, "folders"), "use");
    assert_eq!(served(&view, "archived"), "backup");
    assert_eq!(served(&view, "nowhere"), "nothing");
    assert_eq!(names(&view), ["archived", "everywhere", "folders"]);

    let turned = disk.view_with(&[(Mode::Backup, "backup"), (Mode::Use, "use")]);
    assert_eq!(served(&turned, "folders"), "backup");
    assert_eq!(names(&turned), ["archived", "everywhere", "folders"]);
}

#[test]
fn an_unfinished_job_counts_in_a_backup_folder_but_not_in_a_use_folder() {
    let disk = Disk::new();
    disk.job("use", "unfinished");
    disk.job("backup", "unmarked");
    let failed = disk.job("use", "failed");
    fs::write(failed.join("train.failed"), "").unwrap();
    let other = disk.job("use", "other");
    fs::write(other.join("test.done"), "").unwrap();
    let view = disk.view();
    for hash in ["unfinished", "failed", "other"] {
        assert_eq!(served(&view, hash), "nothing", "{hash}");
    }
    assert_eq!(served(&view, "unmarked"), "backup");
    assert_eq!(names(&view), ["unmarked"]);
}

#[test]
fn a_moved_job_is_a_directory_served_by_its_folder() {
    let disk = Disk::new();
    disk.moved("moved");
    let view = disk.view();
    assert_eq!(served(&view, "moved"), "move");
    assert_eq!(listed(&view)["moved"], FileType::Directory);
}

#[test]
fn a_relative_symlink_to_a_moved_job_is_a_directory_too() {
    let disk = Disk::new();
    disk.finished("move", "moved");
    disk.link("moved", format!("../../../move/jobs/{TASK}/moved"));
    let view = disk.view();
    assert_eq!(served(&view, "moved"), "move");
    assert_eq!(listed(&view)["moved"], FileType::Directory);
}

#[test]
fn a_moved_job_is_found_after_its_folder_has_moved() {
    let disk = Disk::new();
    disk.moved("moved");
    fs::rename(disk.path("move"), disk.path("elsewhere")).unwrap();
    let view = disk.view_with(&[(Mode::Move, "elsewhere")]);
    assert_eq!(served(&view, "moved"), "move");
    assert_eq!(listed(&view)["moved"], FileType::Directory);
}

#[test]
fn a_symlink_to_nothing_is_shown_as_it_is() {
    let disk = Disk::new();
    disk.moved("moved");
    fs::remove_dir_all(disk.path("move")).unwrap();
    let view = disk.view();
    assert_eq!(served(&view, "moved"), "as it is in 0");
    assert_eq!(listed(&view)["moved"], FileType::Symlink);
}

#[test]
fn a_symlink_out_of_the_locations_is_shown_as_it_is_and_not_entered() {
    let disk = Disk::new();
    let outside = disk.finished("outside", "job");
    disk.link("job", &outside);
    disk.finished("backup", "job");
    let view = disk.view();
    assert_eq!(served(&view, "job"), "as it is in 0");
    assert_eq!(listed(&view)["job"], FileType::Symlink);
    fs::remove_dir_all(&outside).unwrap();
    assert_eq!(served(&view, "job"), "backup");
}

#[test]
fn staging_never_appears_from_a_folder() {
    let disk = Disk::new();
    disk.finished("use", ".tmp.abc");
    disk.finished("backup", ".tmp.abc");
    fs::write(disk.job_path("backup", ".tmp.abc.lock"), "").unwrap();
    fs::write(disk.job_path("backup", "a file"), "").unwrap();
    disk.finished("backup", "abc");
    let view = disk.view();
    assert_eq!(names(&view), ["abc"]);
    assert_eq!(served(&view, ".tmp.abc"), "nothing");
    assert_eq!(served(&view, "a file"), "nothing");
}

#[test]
fn staging_in_the_primary_shows_since_experimaestro_recovers_into_it() {
    let disk = Disk::new();
    disk.job("primary", ".tmp.abc");
    let view = disk.view();
    assert_eq!(served(&view, ".tmp.abc"), "primary");
    assert_eq!(names(&view), [".tmp.abc"]);
}

#[test]
fn a_folder_that_is_the_jobs_directory_itself_is_taken_as_such() {
    let disk = Disk::new();
    disk.finished("use", "abc");
    let view = disk.view_with(&[(Mode::Use, "use/jobs")]);
    assert_eq!(served(&view, "abc"), "use");
    assert_eq!(names(&view), ["abc"]);
}

#[test]
fn a_folder_that_is_missing_is_picked_up_when_it_appears_and_let_go_when_it_goes() {
    let disk = Disk::new();
    disk.finished("use", "abc");
    fs::rename(disk.path("use"), disk.path("away")).unwrap();
    let view = disk.view();
    assert_eq!(served(&view, "abc"), "nothing");
    view.watch(Duration::from_millis(5));
    fs::rename(disk.path("away"), disk.path("use")).unwrap();
    eventually(|| served(&view, "abc") == "use");
    fs::rename(disk.path("use"), disk.path("away")).unwrap();
    eventually(|| served(&view, "abc") == "nothing");
    // Another directory under the same path is what counts then.
    disk.finished("use", "other");
    eventually(|| served(&view, "other") == "use" && served(&view, "abc") == "nothing");
}

#[test]
fn tasks_are_the_union_and_only_directories_count_in_folders() {
    let disk = Disk::new();
    let task = |location: &str, task: &str| {
        fs::create_dir_all(disk.path(location).join("jobs").join(task)).unwrap();
    };
    task("primary", "a.train");
    task("use", "a.train");
    task("use", "b.train");
    task("backup", "b.train");
    task("move", "c.train");
    task("move", ".hidden");
    fs::write(disk.path("move").join("jobs/readme"), "").unwrap();
    fs::write(disk.path("primary").join("jobs/notes"), "").unwrap();
    let view = disk.view();
    let sources = view.jobs_sources().unwrap();
    let mut shown = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        for (name, kind) in entries(&source.dir) {
            let earlier = sources.iter().take(at);
            let entry = OsStr::new(&name);
            if view.shows_in_jobs(source, earlier, entry, kind).is_some() {
                shown.push(name);
            }
        }
    }
    shown.sort();
    assert_eq!(shown, ["a.train", "b.train", "c.train", "notes"]);
    assert!(view.task_in_folders(OsStr::new("b.train")));
    assert!(!view.task_in_folders(OsStr::new(".hidden")));
    assert!(!view.task_in_folders(OsStr::new("notes")));
}

#[test]
fn names_with_slashes_or_dots_lead_nowhere() {
    let disk = Disk::new();
    disk.finished("backup", "abc");
    let view = disk.view();
    for (task, hash) in [
        ("..", "abc"),
        (TASK, ".."),
        (TASK, "."),
        ("../jobs", TASK),
        ("", ""),
    ] {
        let found = view.resolve(OsStr::new(task), OsStr::new(hash));
        assert!(
            !matches!(found, Ok(Some(_))),
            "{task:?} {hash:?}: {found:?}"
        );
    }
}

#[test]
fn symlinks_below_the_primary_lead_into_a_mount_that_is_elsewhere() {
    let disk = Disk::new();
    let view = |mountpoint: &Path| {
        let spec = ViewSpec {
            workspace: String::new(),
            primary: disk.path("primary"),
            folders: Vec::new(),
            mountpoint: Some(mountpoint.to_owned()),
        };
        View::open(spec, None).unwrap()
    };
    let below = disk.path("primary").join("jobs/x");
    let elsewhere = view(Path::new("/mnt/here"));
    let shown = elsewhere.shown_target(below.as_os_str()).unwrap();
    assert_eq!(shown, "/mnt/here/jobs/x");
    assert_eq!(elsewhere.stored_target(&shown).unwrap(), below);
    assert_eq!(elsewhere.shown_target(OsStr::new("jobs/x")), None);
    assert_eq!(elsewhere.shown_target(OsStr::new("/etc/passwd")), None);
    let in_place = view(&disk.path("primary"));
    assert_eq!(in_place.shown_target(below.as_os_str()), None);
}

#[test]
fn what_is_in_the_way_of_xpmfs_own_files_is_named() {
    let disk = Disk::new();
    let refused = |way: &str| {
        let said = disk.open(&[]).unwrap_err().to_string();
        assert!(
            said.contains(&disk.path("primary").join(way).display().to_string()),
            "{said}"
        );
        assert!(said.contains("out of the way"), "{said}");
    };
    let own = disk.path("primary").join(".xpmfs");
    fs::write(&own, "").unwrap();
    refused(".xpmfs");
    fs::remove_file(&own).unwrap();
    symlink(disk.path("use"), &own).unwrap();
    refused(".xpmfs");
    fs::remove_file(&own).unwrap();
    fs::create_dir(&own).unwrap();
    disk.open(&[]).unwrap();
    fs::write(own.join("internal"), "").unwrap();
    refused(".xpmfs/internal");
}
