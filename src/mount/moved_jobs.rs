//! Drops the cached state of a job that an archiver moved, in this process or another.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, Statx};

use crate::mount::recovery::Recoveries;
use crate::mount::tables::dir_cache::DirCache;
use crate::mount::tables::invalidate::Invalidator;
use crate::mount::tables::listings::Listings;
use crate::mount::tables::node_changes::NodeChanges;
use crate::mount::tables::nodes::Nodes;
use crate::mount::tables::numbers::Devices;
use crate::mount::tables::superseded::Superseded;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::view::location::Role;
use crate::view::{Location, View};
use crate::workspace::jobs::JobId;
use crate::workspace::layout;

/// The name of a job's directory after another entry has replaced it.
pub(super) fn staging(hash: &OsStr) -> OsString {
    let mut name = OsString::from(layout::STAGING_PREFIX);
    name.push(hash);
    name
}

/// The state that a mount caches of jobs that may be moved.
#[derive(Debug, Clone)]
pub(super) struct JobCaches {
    pub(super) view: Arc<View>,
    pub(super) devices: Arc<Devices>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) dir_cache: Arc<DirCache>,
    pub(super) listings: Arc<Listings>,
    pub(super) invalidate: Arc<Invalidator>,
    pub(super) recoveries: Arc<Recoveries>,
    pub(super) node_changes: Arc<NodeChanges>,
    pub(super) superseded: Arc<Superseded>,
}

impl JobCaches {
    /// Drops the cached state of a job that has been moved.
    pub(super) fn moved(&self, job: &JobId) {
        // It may have been deleted.
        self.view.look_for_deleted();
        if self.recovered(job) {
            // The names lead to the same nodes as before.
            return;
        }
        let hash = Name::from(job.hash());
        // The task's node is that of the first location with a directory of this task.
        for location in self.view.locations() {
            if let Ok(stat) = task_of(location, job)
                && let Some(task) = self.nodes.id_of(&self.devices, &FileId::of(&stat))
            {
                self.invalidate.name(task, &hash);
            }
        }
        if let Some((old, fd)) = self.old_directory(job) {
            self.close_below(old);
            self.invalidate.attributes(old);
            // For processes that work in it, until the kernel forgets it.
            self.dir_cache.keep_moved_job(old, fd.into());
            if self.nodes.get(old).is_none() {
                self.dir_cache.forget(old);
            }
        }
    }

    /// The job's previous directory in the primary, if the kernel knows it.
    fn old_directory(&self, job: &JobId) -> Option<(u64, OwnedFd)> {
        let task = self.view.primary().root().ok()?.task(job.task_id()).ok()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let replaced = rustix::fs::openat(task, staging(job.hash()), flags, Mode::empty());
        let fd = replaced.or_else(|_| self.released(job)).ok()?;
        let identity = FileId::of(&at::stat_fd(&fd).ok()?);
        Some((self.nodes.id_of(&self.devices, &identity)?, fd))
    }

    /// The job's directory after it was released, until it is removed.
    fn released(&self, job: &JobId) -> rustix::io::Result<OwnedFd> {
        let root = self.view.primary().root()?;
        let names = [layout::XPMFS, layout::RELEASED].map(OsStr::new);
        let names = names.into_iter().chain([job.task_id(), job.hash()]);
        at::open_dirs(root.fd(), names)
    }

    /// Closes the descriptors of a job's directory and of those below it; listings that were begun go on. Only directories
    /// that are kept open are checked, and their number is bounded.
    fn close_below(&self, job: u64) {
        for id in self
            .dir_cache
            .kept()
            .into_iter()
            .chain(self.listings.kept())
        {
            if self.nodes.is_below_job(id, job) {
                self.dir_cache.close(id);
                self.listings.replace_directory(id);
            }
        }
    }
}

/// How long a folder may take to reply; the lock of the moved job is held meanwhile.
const TASK_REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// The attributes of a location's directory of a task. Folders have a deadline: the caller holds the lock of
/// the job, which may have moved to another folder.
fn task_of(location: &Location, job: &JobId) -> rustix::io::Result<Statx> {
    let (root, task) = (location.root()?, job.task_id().to_owned());
    let look = move || root.task(&task).and_then(at::stat_fd);
    match location.role() {
        Role::Primary => look(),
        Role::Folder(_) => location.answer(TASK_REPLY_TIMEOUT, look)?,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::{CWD, RenameFlags};

    use super::*;
    use crate::mount::caller::Caller;
    use crate::mount::tables::invalidate::Invalidation;
    use crate::mount::testing::{Fixture, ROOT_CALLER};
    use crate::settings::Mode as FolderMode;
    use crate::view::PRIMARY;

    fn exchange(top: &Path) {
        let task = top.join("primary/jobs/t");
        let (job, aside) = (task.join("h"), task.join(".tmp.h"));
        rustix::fs::renameat_with(CWD, aside, CWD, job, RenameFlags::EXCHANGE).unwrap();
    }

    /// The entries of a directory, sorted.
    fn names(mount: &crate::mount::Mount, id: u64) -> Vec<OsString> {
        let mut names = Vec::new();
        let listed = mount.list(id, 0, |item| {
            names.push(item.name.to_owned());
            true
        });
        listed.unwrap();
        names.sort();
        names
    }

    #[test]
    fn a_copy_that_another_node_replaces_is_looked_up_anew() {
        let job = "folder/jobs/t/h";
        let fixture = Fixture::new(FolderMode::Move, &[job, "folder/jobs/t/.tmp.h"]);
        let mount = &fixture.mount;
        let (old, new) = (
            fixture.top().join(job),
            fixture.top().join("folder/jobs/t/.tmp.h"),
        );
        for copy in [&old, &new] {
            fs::write(copy.join("file"), "").unwrap();
        }
        let ids = fixture.look_up("jobs/t/h/file");
        rustix::fs::renameat_with(CWD, &old, CWD, &new, RenameFlags::EXCHANGE).unwrap();
        fs::remove_file(new.join("file")).unwrap();
        let found = mount.lookup(ids[3], OsStr::new("file")).map(drop);
        assert_eq!(found, Err(rustix::io::Errno::STALE));
        assert!(names(mount, ids[3]).contains(&"file".into()));
    }

    #[test]
    fn a_file_that_is_replaced_after_the_second_lookup_of_its_path_is_opened() {
        let job = "folder/jobs/t/h";
        let fixture = Fixture::new(FolderMode::Move, &[job, "folder/jobs/t/.tmp.h"]);
        let mount = &fixture.mount;
        let caller = Caller {
            tid: 7,
            ..ROOT_CALLER
        };
        let (old, new) = (
            fixture.top().join(job),
            fixture.top().join("folder/jobs/t/.tmp.h"),
        );
        fs::write(old.join("file"), "").unwrap();
        let ids = fixture.look_up("jobs/t/h");
        rustix::fs::renameat_with(CWD, &old, CWD, &new, RenameFlags::EXCHANGE).unwrap();
        fs::remove_file(new.join("file")).unwrap();
        fs::write(old.join("file"), "found").unwrap();
        let look_up = |parent, name: &str| mount.lookup_for(caller.tid, parent, OsStr::new(name));
        let found = look_up(ids[3], "file").map(drop);
        assert_eq!(found, Err(rustix::io::Errno::STALE));
        // The kernel looks the path up again, and passes the error of that to the program.
        let mut id = ids[0];
        for name in ["jobs", "t", "h", "file"] {
            id = look_up(id, name).unwrap().id;
        }
        fs::write(old.join("next"), "").unwrap();
        fs::rename(old.join("next"), old.join("file")).unwrap();
        let opened = mount.open(&caller, id, libc::O_RDONLY).unwrap();
        let mut read = [0; 10];
        assert_eq!(mount.read(opened.handle, 0, &mut read).unwrap(), 5);
    }

    #[test]
    fn copy_that_serves_its_job_again_is_the_file_that_it_was() {
        let fixture = Fixture::new(FolderMode::Move, &["primary/jobs/t", "folder/jobs/t/h"]);
        let mount = &fixture.mount;
        let caches = mount.job_caches();
        let job = JobId::new("t", "h").unwrap();
        let archived = fixture.top().join("folder/jobs/t/h");
        fs::write(archived.join("file"), "").unwrap();
        let id = fixture.look_up("jobs/t/h/file")[4];
        // It is recovered, for a change that is not made.
        let recovered = fixture.primary("jobs/t/h");
        fs::create_dir(&recovered).unwrap();
        fs::write(recovered.join("file"), "").unwrap();
        caches.moved(&job);
        assert!(mount.superseded.successor(id).is_some());
        // It is moved again, and its copy is as it was.
        symlink(&archived, fixture.primary("jobs/t/.tmp.h")).unwrap();
        exchange(fixture.top());
        caches.moved(&job);
        fs::remove_dir_all(fixture.primary("jobs/t/.tmp.h")).unwrap();
        let id = fixture.look_up("jobs/t/h/file")[4];
        mount.getattr(id, None).unwrap();
        assert_eq!(mount.superseded.successor(id), None);
    }

    #[test]
    fn job_of_a_contended_name_is_listed_where_it_is_now() {
        let fixture = Fixture::new(FolderMode::Move, &["primary/jobs/t", "folder/jobs/t/h"]);
        let mount = &fixture.mount;
        let task = fixture.look_up("jobs/t")[2];
        mount.contended.note(task, Name::from(OsStr::new("h")));
        let job = fixture.look_up("jobs/t/h")[3];
        // It is recovered, and changed.
        fs::create_dir(fixture.primary("jobs/t/h")).unwrap();
        fs::write(fixture.primary("jobs/t/h/new"), "").unwrap();
        mount.job_caches().moved(&JobId::new("t", "h").unwrap());
        assert_eq!(mount.node(job).unwrap().location, PRIMARY);
        assert!(names(mount, job).contains(&"new".into()));
        // Another node moves it.
        let archived = fixture.top().join("folder/jobs/t/h");
        fs::write(archived.join("new"), "").unwrap();
        symlink(&archived, fixture.primary("jobs/t/.tmp.h")).unwrap();
        exchange(fixture.top());
        fs::remove_file(fixture.primary("jobs/t/.tmp.h/new")).unwrap();
        assert!(names(mount, job).contains(&"new".into()));
        let found = mount.lookup(job, OsStr::new("new")).map(drop);
        assert_eq!(found, Err(rustix::io::Errno::STALE));
    }

    #[test]
    fn moved_job_is_invalidated_and_closed() {
        let deep = [
            "primary/jobs/t/h/deep/er",
            "primary/jobs/t/other/deep/er",
            "folder/jobs/t/h/deep/er",
        ];
        let fixture = Fixture::new(FolderMode::Move, &deep);
        for directory in deep {
            fs::write(fixture.top().join(directory).join("file"), "").unwrap();
        }
        let mount = &fixture.mount;
        let invalidate = mount.invalidate.intercept();
        let caches = mount.job_caches();
        let ids = fixture.look_up("jobs/t/h/deep/er/file");
        let others = fixture.look_up("jobs/t/other/deep/er/file");
        let (task, job) = (ids[2], ids[3]);
        mount.list(ids[4], 0, |_| true).unwrap();
        let archived = fixture.top().join("folder/jobs/t/h");
        symlink(archived, fixture.top().join("primary/jobs/t/.tmp.h")).unwrap();
        exchange(fixture.top());

        caches.moved(&JobId::new("t", "h").unwrap());
        let name = Invalidation::Name(task, Name::from(OsStr::new("h")));
        let sent: Vec<Invalidation> = invalidate.try_iter().collect();
        assert!(sent.contains(&name), "{sent:?}");
        let kept = mount.dir_cache.kept();
        assert!(ids[3..].iter().all(|id| !kept.contains(id)), "{kept:?}");
        assert!(
            kept.contains(&others[4]),
            "jobs that have not moved stay open"
        );
        // A process that is in the old directory can still use it until the kernel forgets it.
        mount.getattr(job, None).unwrap();
        let now = fixture.look_up("jobs/t/h");
        assert_ne!(now[3], job);
        assert_ne!(mount.node(now[3]).unwrap().location, PRIMARY);
        mount.forget(job, u64::MAX);
        assert!(mount.dir_cache.removed(job).is_none());

        // The recovered job is in the place of the archived one, in the kernel too.
        exchange(fixture.top());
        caches.moved(&JobId::new("t", "h").unwrap());
        assert_eq!(fixture.look_up("jobs/t/h")[3], now[3]);
        assert_eq!(mount.node(now[3]).unwrap().location, PRIMARY);
    }

    /// Lists the first entries of a directory, then calls `change`, and lists the others.
    fn list_around(mount: &crate::mount::Mount, id: u64, change: impl FnOnce()) -> Vec<OsString> {
        let (mut names, mut next) = (Vec::new(), 0);
        let mut list = |count: usize| {
            let mut left = count;
            let listed = mount.list(id, next, |item| {
                if left == 0 {
                    return false;
                }
                left -= 1;
                names.push(item.name.to_owned());
                next = item.next;
                true
            });
            listed.unwrap();
        };
        list(4);
        change();
        for _ in 0..4 {
            list(3);
        }
        names.sort();
        names
    }

    #[test]
    fn listing_goes_on_while_its_job_is_recovered_or_released() {
        let files = ["a", "b", "c", "d", "e"];
        for is_released in [false, true] {
            let place = if is_released { "primary" } else { "folder" };
            let directory = format!("{place}/jobs/t/h");
            // With internal files, the archived job is listed as a union, whose positions are others.
            let internal = "primary/.xpmfs/internal/t/h";
            let fixture = Fixture::new(FolderMode::Backup, &[&directory, internal]);
            let fill = |job: &str| {
                let job = fixture.top().join(job);
                fs::create_dir_all(&job).unwrap();
                for name in files {
                    fs::write(job.join(name), "").unwrap();
                }
            };
            fill(&directory);
            let ids = fixture.look_up("jobs/t/h");
            let names = list_around(&fixture.mount, ids[3], || {
                if is_released {
                    fill("folder/jobs/t/h");
                    let released = fixture.primary(".xpmfs/released/t");
                    fs::create_dir_all(&released).unwrap();
                    fs::rename(fixture.primary("jobs/t/h"), released.join("h")).unwrap();
                } else {
                    fill("primary/jobs/t/h");
                }
                let caches = fixture.mount.job_caches();
                caches.moved(&JobId::new("t", "h").unwrap());
            });
            assert_eq!(names, [".", "..", "a", "b", "c", "d", "e"], "{is_released}");
        }
    }

    #[test]
    fn remainder_of_moved_job_is_stale() {
        let deep = ["primary/jobs/t/h/deep", "folder/jobs/t/h/deep"];
        let fixture = Fixture::new(FolderMode::Move, &deep);
        for directory in deep {
            fs::write(fixture.top().join(directory).join("file"), "").unwrap();
        }
        let mount = &fixture.mount;
        let ids = fixture.look_up("jobs/t/h/deep/file");
        let archived = fixture.top().join("folder/jobs/t/h");
        symlink(archived, fixture.top().join("primary/jobs/t/.tmp.h")).unwrap();
        exchange(fixture.top());
        // The mount has received no report of the move; the old directory is removed name by name.
        let aside = fixture.top().join("primary/jobs/t/.tmp.h");
        fs::remove_file(aside.join("deep/file")).unwrap();
        let found = mount.lookup(ids[4], OsStr::new("file"));
        assert_eq!(found.unwrap_err(), rustix::io::Errno::STALE);
        fs::remove_dir_all(aside).unwrap();
        let found = mount.lookup(ids[3], OsStr::new("deep"));
        assert_eq!(found.unwrap_err(), rustix::io::Errno::STALE);
        // A process that has the directory open lists the directory that replaced it.
        for id in [ids[3], ids[4]] {
            assert_eq!(names(mount, id).len(), 3);
        }
    }

    #[test]
    fn released_job_is_listed_where_it_is_now() {
        let deep = ["primary/jobs/t/h/data", "folder/jobs/t/h/data"];
        let fixture = Fixture::new(FolderMode::Backup, &deep);
        for directory in deep {
            fs::write(fixture.top().join(directory).join("file"), "").unwrap();
        }
        let mount = &fixture.mount;
        let listed = |id: u64| names(mount, id);
        let ids = fixture.look_up("jobs/t/h/data");
        let (job, data) = (ids[3], ids[4]);
        let is_whole = || listed(job) == [".", "..", "data"] && listed(data) == [".", "..", "file"];
        let released = fixture.primary(".xpmfs/released/t");
        fs::create_dir_all(&released).unwrap();
        fs::rename(fixture.primary("jobs/t/h"), released.join("h")).unwrap();
        for id in [job, data] {
            mount.dir_cache.close(id);
        }
        assert!(is_whole(), "before it is reported");
        let moved = || mount.job_caches().moved(&JobId::new("t", "h").unwrap());
        moved();
        assert!(is_whole(), "before the files are removed");
        fs::remove_dir_all(&released).unwrap();
        assert!(is_whole(), "after that");
        let found = mount.lookup(job, OsStr::new("data")).map(drop);
        assert_eq!(found, Err(rustix::io::Errno::STALE));
        // It is recovered, and changed.
        let recovered = fixture.primary("jobs/t/h/data");
        fs::create_dir_all(&recovered).unwrap();
        fs::write(recovered.join("new"), "").unwrap();
        moved();
        assert_eq!(listed(data), [".", "..", "new"]);
        assert!(mount.lookup(job, OsStr::new("data")).is_ok());
        mount.getattr(job, None).unwrap();
    }

    #[test]
    fn a_job_that_is_put_back_is_as_it_was() {
        // A program uses a job that is being released or moved, so that it is put back.
        for (is_released, is_reported) in
            [(true, true), (true, false), (false, true), (false, false)]
        {
            let context = format!("released: {is_released}, reported: {is_reported}");
            let deep = ["primary/jobs/t/h/data", "folder/jobs/t/h/data"];
            let fixture = Fixture::new(FolderMode::Move, &deep);
            for directory in deep {
                fs::write(fixture.top().join(directory).join("file"), "").unwrap();
            }
            let mount = &fixture.mount;
            let ids = fixture.look_up("jobs/t/h/data");
            let (job, data) = (ids[3], ids[4]);
            let moved = || mount.job_caches().moved(&JobId::new("t", "h").unwrap());
            let (place, released) = (
                fixture.primary("jobs/t/h"),
                fixture.primary(".xpmfs/released/t"),
            );
            if is_released {
                fs::create_dir_all(&released).unwrap();
                fs::rename(&place, released.join("h")).unwrap();
            } else {
                symlink(
                    fixture.top().join("folder/jobs/t/h"),
                    fixture.primary("jobs/t/.tmp.h"),
                )
                .unwrap();
                exchange(fixture.top());
            }
            moved();
            for id in [job, data] {
                assert_eq!(names(mount, id).len(), 3, "{context}");
            }
            if is_released {
                fs::rename(released.join("h"), &place).unwrap();
            } else {
                exchange(fixture.top());
            }
            if is_reported {
                moved();
                assert!(mount.dir_cache.removed(job).is_none(), "{context}");
            }
            fs::write(place.join("data/new"), "").unwrap();
            for (id, count) in [(job, 3), (data, 4)] {
                assert_eq!(names(mount, id).len(), count, "{context}");
            }
            let absent = mount.lookup(data, OsStr::new("absent")).map(drop);
            assert_eq!(absent, Err(rustix::io::Errno::NOENT), "{context}");
            let name = OsStr::new("made");
            let made = mount.create(&ROOT_CALLER, data, name, 0o644, libc::O_WRONLY, None);
            assert!(made.is_ok(), "{context}");
            assert!(place.join("data/made").exists(), "{context}");
        }
    }

    #[test]
    fn a_directory_that_was_found_before_its_job_was_recovered_is_listed_where_it_is_now() {
        let fixture = Fixture::new(FolderMode::Backup, &["folder/jobs/t/h/data"]);
        let mount = &fixture.mount;
        let job = fixture.look_up("jobs/t/h")[3];
        let found = mount.find(job, OsStr::new("data")).unwrap();
        let recovered = fixture.primary("jobs/t/h/data");
        fs::create_dir_all(&recovered).unwrap();
        fs::write(recovered.join("new"), "").unwrap();
        mount.job_caches().moved(&JobId::new("t", "h").unwrap());
        // By a request that was begun before.
        let data = mount.enter(job, OsStr::new("data"), found).unwrap().id;
        assert_eq!(names(mount, data), [".", "..", "new"]);
    }

    #[test]
    fn removed_job_is_not_listed_when_another_has_its_name() {
        let fixture = Fixture::new(FolderMode::Backup, &["primary/jobs/t/h"]);
        let mount = &fixture.mount;
        let ids = fixture.look_up("jobs/t/h");
        mount.rmdir(&ROOT_CALLER, ids[2], OsStr::new("h")).unwrap();
        fs::create_dir_all(fixture.primary("jobs/t/h/data")).unwrap();
        let listed = mount.list(ids[3], 0, |_| true);
        assert_eq!(listed, Err(rustix::io::Errno::NOENT));
    }

    #[test]
    fn report_of_unmoved_job_has_no_effect() {
        let fixture = Fixture::new(FolderMode::Move, &["primary/jobs/t/h"]);
        let mount = &fixture.mount;
        let ids = fixture.look_up("jobs/t/h");
        let absent = || mount.lookup(ids[3], OsStr::new("file")).unwrap_err();
        assert_eq!(absent(), rustix::io::Errno::NOENT);
        for (task, hash) in [("t", "h"), ("t", "none"), ("none", "none")] {
            mount.job_caches().moved(&JobId::new(task, hash).unwrap());
        }
        assert_eq!(absent(), rustix::io::Errno::NOENT);
    }
}
