//! A program waits for the recovery of a job whose folder stops answering.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xpmfs::sys::deadline::wait_until;

use crate::common::{names, run};
use crate::stage::{OTHER_TASK, Stage, TASK, until};

const HELD: &str = "held/model.bin";

/// A program that appends to a file, and is ended with the test.
struct Writer(Child);

impl Writer {
    fn start(stage: &Stage, path: &Path) -> Writer {
        let mut command = stage.workspace.command("sh");
        command.args(["-c", "exec printf more >>\"$1\"", "sh"]);
        command.arg(path).stdin(Stdio::null()).env("LC_ALL", "C");
        Writer(command.stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Whether it has succeeded, and what it printed; it must end in time.
    fn end(mut self, within: Duration) -> (bool, String) {
        assert!(
            wait_until(within, || self.0.try_wait().unwrap().is_some()),
            "it does not end"
        );
        let mut text = String::new();
        let errors = self.0.stderr.take();
        errors.unwrap().read_to_string(&mut text).unwrap();
        (self.0.wait().unwrap().success(), text)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn recoveries(stage: &Stage, mountpoint: &Path) -> Value {
    stage.status(mountpoint)["recoveries"].clone()
}

/// What is left in a task's directory in the primary besides jobs.
fn left(stage: &Stage) -> Vec<PathBuf> {
    let task = stage.workspace.primary().join("jobs").join(TASK);
    let all = names(&task).into_iter().map(PathBuf::from);
    all.filter(|name| name.to_string_lossy().starts_with('.'))
        .collect()
}

fn append(stage: &Stage, path: &Path) {
    let (succeeded, text) = Writer::start(stage, path).end(Duration::from_secs(60));
    assert!(succeeded, "{}: {text}", path.display());
    let text = stage.start(path.parent().unwrap(), "cat model.bin", "");
    assert!(text.succeed().ends_with("more"));
}

/// One file of a job is not read, as from a disk with a bad block; then the folder answers nothing.
#[test]
fn a_recovery_from_a_folder_that_hangs_ends_and_leaves_nothing() {
    let stage = Stage::new(false);
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    let jobs = mountpoint.join("jobs");
    let held = jobs.join(TASK).join(HELD);
    stage
        .folder
        .hold(|operation, path| operation == "read" && path.ends_with(Path::new(TASK).join(HELD)));
    let interrupted = Writer::start(&stage, &held);
    until("its recovery hangs", || stage.folder.parked() > 0);
    until("it waits", || {
        recoveries(&stage, &mountpoint)[0]["waiting"] == 1
    });

    // Jobs of another folder, and others of this one, come back meanwhile.
    append(&stage, &jobs.join(TASK).join("other/model.bin"));
    append(&stage, &jobs.join(OTHER_TASK).join(HELD));
    // Ctrl-C ends the wait at once.
    let began = Instant::now();
    let pid = interrupted.0.id().to_string();
    run(Command::new("kill").args(["-INT", &pid]));
    let (succeeded, _) = interrupted.end(Duration::from_secs(10));
    assert!(!succeeded && began.elapsed() < Duration::from_secs(10));

    // The next one waits for the same folder. When that answers nothing any more, its call fails.
    let waiting = Writer::start(&stage, &held);
    until("it waits", || {
        recoveries(&stage, &mountpoint)[0]["waiting"] == 1
    });
    stage.folder.hang();
    until("the folder is offline", || {
        stage.state(&mountpoint) == "offline"
    });
    let (succeeded, text) = waiting.end(Duration::from_secs(30));
    assert!(!succeeded && text.contains("timed out"), "{text}");
    assert!(
        !stage
            .workspace
            .primary()
            .join("jobs")
            .join(TASK)
            .join("held")
            .exists()
    );

    // When it answers again, the recovery ends, leaves nothing, and can be made anew.
    stage.folder.go_on();
    until("no recovery is left", || {
        recoveries(&stage, &mountpoint) == json!([])
    });
    until("nothing is left of it", || left(&stage).is_empty());
    until("the folder is ok", || stage.state(&mountpoint) == "ok");
    append(&stage, &held);
    let copy = stage.workspace.top().join("disk/jobs").join(TASK);
    assert_eq!(fs::read_to_string(copy.join(HELD)).unwrap(), "held");
    mounted.unmount();
    assert_eq!(left(&stage), [] as [PathBuf; 0]);
}

/// The folder answers again before the call has failed.
#[test]
fn a_recovery_goes_on_when_its_folder_answers_again() {
    let stage = Stage::new(true);
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    let held = mountpoint.join("jobs").join(TASK).join(HELD);
    stage
        .folder
        .hold(|operation, path| operation == "read" && path.ends_with(Path::new(TASK).join(HELD)));
    let mut writer = Writer::start(&stage, &held);
    until("its recovery hangs", || stage.folder.parked() > 0);
    stage.folder.hang();
    until("the folder is offline", || {
        stage.state(&mountpoint) == "offline"
    });
    assert!(
        writer.0.try_wait().unwrap().is_none(),
        "it has failed at once"
    );
    stage.folder.go_on();
    let (succeeded, text) = writer.end(Duration::from_secs(30));
    assert!(succeeded, "{text}");
    let text = stage.start(held.parent().unwrap(), "cat model.bin", "");
    assert_eq!(text.succeed(), "heldmore");
    assert_eq!(left(&stage), [] as [PathBuf; 0]);
    mounted.unmount();
}
