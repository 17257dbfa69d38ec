//! A recovered job is archived again once it is finished, and not while a program writes to it.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use crate::common::{Workspace, eventually};
use crate::stage::{Beneath, TASK, archived};

#[test]
fn a_recovered_job_is_archived_again() {
    for mode in ["move", "backup"] {
        let workspace = Workspace::builder()
            .folders(&[mode])
            .keys("{settle: 100ms, scan_interval: 100ms}")
            .build();
        let copy = archived(&workspace, mode, "a");
        let beneath = Beneath::of(&workspace.primary());
        let mounted = workspace.mount_archiving(&workspace.primary(), &[]);
        let job = mounted.job(TASK, "a");
        assert_eq!(mounted.location(&job), mode);
        let options = File::options().append(true).clone();
        let mut writer = options.open(job.join("train.out")).unwrap();
        writer.write_all(b"more\n").unwrap();
        let there = beneath.path().join("jobs").join(TASK).join("a");
        // For several scans.
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            assert!(
                there.symlink_metadata().unwrap().is_dir(),
                "it was moved away"
            );
            assert!(
                !fs::read_to_string(copy.join("train.out"))
                    .unwrap()
                    .contains("more")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        writer.write_all(b"last\n").unwrap();
        drop(writer);
        eventually("the folder has the job as it is now", || {
            fs::read_to_string(copy.join("train.out")).is_ok_and(|text| text.ends_with("last\n"))
        });
        let expected = if mode == "move" { "move" } else { "primary" };
        eventually("the job is where it should be", || {
            mounted.location(&job) == expected
        });
        let text = fs::read_to_string(job.join("train.out")).unwrap();
        assert_eq!(text, "step 1\nstep 2\nmore\nlast\n");
        // And comes back again.
        fs::write(job.join("new"), "new").unwrap();
        assert_eq!(mounted.location(&job), "primary");
    }
}
