//! The inotify watch that experimaestro puts on `.events/jobs`, and programs in jobs.

use std::fs::{self, File};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::common::{Workspace, eventually, run};
use crate::plan::Plan;

/// A watch on a directory, of all that experimaestro watches for.
struct Watch {
    inotify: OwnedFd,
    /// What has happened, and to which name.
    events: Vec<(ReadFlags, String)>,
}

impl Watch {
    fn on(directory: &Path) -> Watch {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        let wanted = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, directory, wanted).unwrap();
        Watch {
            inotify,
            events: Vec::new(),
        }
    }

    fn read(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event
                        .file_name()
                        .map(|name| name.to_str().unwrap().to_owned());
                    self.events.push((event.events(), name.unwrap_or_default()));
                }
                Err(Errno::WOULDBLOCK) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn wait_for(&mut self, kind: ReadFlags, name: &str) {
        eventually(&format!("{kind:?} of {name}"), || {
            self.read();
            self.saw(kind, name)
        });
    }

    fn saw(&self, kind: ReadFlags, name: &str) -> bool {
        self.events
            .iter()
            .any(|(seen, of)| seen.contains(kind) && of.contains(name))
    }
}

#[test]
fn a_watch_sees_what_is_done_through_the_mount() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let events = mounted.path().join(".events/jobs");
    let job = mounted.job("my.module.train", "abc");
    for directory in [&events, &job] {
        fs::create_dir_all(directory).unwrap();
    }
    let mut watch = Watch::on(&events);
    let mut file = File::create(events.join("one.jsonl")).unwrap();
    watch.wait_for(ReadFlags::CREATE, "one.jsonl");
    file.write_all(b"{}\n").unwrap();
    watch.wait_for(ReadFlags::MODIFY, "one.jsonl");
    drop(file);
    watch.wait_for(ReadFlags::CLOSE_WRITE, "one.jsonl");
    fs::rename(events.join("one.jsonl"), events.join("two.jsonl")).unwrap();
    watch.wait_for(ReadFlags::MOVED_FROM, "one.jsonl");
    watch.wait_for(ReadFlags::MOVED_TO, "two.jsonl");
    fs::hard_link(events.join("two.jsonl"), job.join("linked")).unwrap();
    fs::hard_link(job.join("linked"), events.join("three.jsonl")).unwrap();
    watch.wait_for(ReadFlags::CREATE, "three.jsonl");
    fs::remove_file(events.join("two.jsonl")).unwrap();
    watch.wait_for(ReadFlags::DELETE, "two.jsonl");
    assert!(!watch.saw(ReadFlags::DELETE, "three.jsonl"));
}

#[test]
fn a_watch_sees_the_events_of_a_plan() {
    let workspace = Workspace::new();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    let mountpoint = workspace.mountpoint("mnt");
    let _mounted = workspace.mount_at(&mountpoint);
    let events = mountpoint.join(".events/jobs");
    fs::create_dir_all(&events).unwrap();
    let mut watch = Watch::on(&events);
    let ran = plan.run(&mountpoint, &["1"]);
    watch.read();
    for job in &ran.executed {
        for kind in [ReadFlags::CREATE, ReadFlags::MODIFY, ReadFlags::DELETE] {
            assert!(watch.saw(kind, &job.hash), "{kind:?} of {job:?}");
        }
    }
}

#[test]
fn a_program_in_an_archived_job_is_executed_from_the_mount() {
    let workspace = Workspace::new();
    let mountpoint = workspace.mountpoint("mnt");
    for (folder, hash) in [("primary", "a"), ("use", "b"), ("move", "c")] {
        let job = workspace.finished(folder, "my.module.train", hash);
        fs::copy("/usr/bin/readlink", job.join("program")).unwrap();
    }
    let mounted = workspace.mount_at(&mountpoint);
    for hash in ["a", "b", "c"] {
        let program = mounted.job("my.module.train", hash).join("program");
        let executed = run(Command::new(&program).arg("/proc/self/exe"));
        assert_eq!(Path::new(executed.trim_end()), program);
    }
}
