//! `release` in the settings: the daemon releases jobs by itself, and `status` and the log say so.

use std::path::Path;

use serde_json::Value;

use crate::common::{Mounted, Workspace, run};
use crate::job::{self, hash};
use crate::stage::{has_all, is_drained, status, told, until};

/// A workspace with a backup folder, archived jobs and these keys.
fn workspace(keys: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune(keys);
    for number in 0..3 {
        job::make(&workspace.primary(), number);
    }
    workspace
}

/// A mount that queries the free space every 100 ms, and may search for jobs every 6 s.
fn mount<'a>(workspace: &'a Workspace, mountpoint: &Path) -> Mounted<'a> {
    let mut command = workspace.xpmfs();
    command.env("XPMFS_TEST_RELEASE_DIVISOR", "600");
    command.env("XPMFS_TEST_GRACE_MS", "100");
    command.args(["mount", "-v", "-w", "test", "--log"]);
    command
        .arg(workspace.top().join("xpmfs.log"))
        .arg(mountpoint);
    workspace.mounting(&mut command, mountpoint)
}

fn report(workspace: &Workspace, mountpoint: &Path) -> Value {
    status(workspace, mountpoint)["archive"]["release"].take()
}

fn in_primary(workspace: &Workspace, number: usize) -> bool {
    workspace.primary().join(job::path(number)).exists()
}

/// The mount shows all jobs, whole.
fn assert_shown(mountpoint: &Path) {
    for number in 0..3 {
        job::look_at(&mountpoint.join(job::path(number)), number).unwrap();
    }
}

#[test]
fn jobs_that_were_not_used_are_released_and_pinned_ones_are_not() {
    let workspace = workspace("{settle: 100ms, scan_interval: 1h, release: {older_than: 1s}}");
    let pinned = format!("{}/{}", job::TASK, hash(1));
    run(workspace
        .xpmfs()
        .args(["jobs", "pin", "-w", "test", &pinned]));
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = mount(&workspace, &mountpoint);
    until("two are released", || {
        !in_primary(&workspace, 0) && !in_primary(&workspace, 2)
    });
    assert!(in_primary(&workspace, 1));
    assert_shown(&mountpoint);
    assert_eq!(mounted.location(job::path(0)), "backup");
    assert_eq!(mounted.location(job::path(1)), "primary");
    until("status says so", || {
        let report = report(&workspace, &mountpoint);
        report["jobs"] == 2 && report["last_search"].is_string()
    });
    let found = report(&workspace, &mountpoint);
    assert!(
        found["last_release"].as_str().unwrap().ends_with('Z'),
        "{found}"
    );
    assert!(found["freed"].as_u64().unwrap() > 0, "{found}");
    assert_eq!(found["older_than"], 1.0, "{found}");
    let text = told(&workspace, &mountpoint);
    assert!(
        text.contains("release jobs not used for 1 s: 2 jobs since"),
        "{text}"
    );
    let log = workspace.log();
    assert!(
        log.contains(&format!("released {}/{}", job::TASK, hash(0))),
        "{log}"
    );
    mounted.unmount();
}

#[test]
fn jobs_are_released_only_while_space_is_short() {
    let short = "{settle: 100ms, scan_interval: 1h, release: {keep_free: 100%}}";
    let enough = "{settle: 100ms, scan_interval: 1h, release: {keep_free: 1K}}";
    for (keys, released) in [(short, true), (enough, false)] {
        let workspace = workspace(keys);
        let mountpoint = workspace.mountpoint("elsewhere");
        let mounted = mount(&workspace, &mountpoint);
        until("all are archived", || {
            has_all(&workspace.folder("backup"), 0..3) && is_drained(&workspace, &mountpoint)
        });
        match released {
            true => until("all are released", || {
                (0..3).all(|number| !in_primary(&workspace, number))
            }),
            false => until("the space was queried", || {
                report(&workspace, &mountpoint)["keep_free"] == 1024
            }),
        }
        until("status says so", || {
            let report = report(&workspace, &mountpoint);
            let searched = report["last_search"].is_string();
            searched == released && (report["lacking"].as_u64().unwrap() > 0) == released
        });
        let text = told(&workspace, &mountpoint);
        assert_eq!(text.contains("more must become free"), released, "{text}");
        assert!(
            text.contains("release the oldest while less than"),
            "{text}"
        );
        assert_shown(&mountpoint);
        mounted.unmount();
        let there = (0..3).filter(|number| in_primary(&workspace, *number));
        assert_eq!(there.count(), if released { 0 } else { 3 });
    }
}
