//! Scripts that join a mount and leave it, at once or one after the other; mounts that are not shared.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use xpmfs::daemon::mounts;

use super::{Lines, Script, holders, lines};
use crate::common;
use crate::home::{Home, at_everybodys_home, is_mounted, is_root, said};

/// Random numbers from a seed that is printed.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let seed = match std::env::var("XPMFS_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => jiff::Timestamp::now().as_nanosecond() as u64 | 1,
        };
        common::say(&format!("XPMFS_TEST_SEED={seed}"));
        Random(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Waits, mounts, looks many times for a job that only the folder has, unmounts.
const BATCH_JOB: &str = r#"
sleep "$1"
eval "$3" || { echo "mount: $?"; exit 1; }
end=$(($(date +%s%N) + $2))
while [ "$(date +%s%N)" -lt $end ]; do
    [ -d "$5/jobs/t/$6" ] || { echo "the bare primary"; exit 1; }
done
eval "$4" || { echo "umount: $?"; exit 1; }
"#;

/// Twenty times two batch jobs at once.
fn interleave(home: &Home, place: &Path) {
    let lines = lines(home, place);
    let script = home.path("batch_job.sh");
    fs::write(&script, BATCH_JOB).unwrap();
    let mut random = Random::new();
    for round in 0..20 {
        let jobs: Vec<Child> = (0..2)
            .map(|_| {
                let wait = format!("0.{:03}", random.below(400));
                let work = (random.below(300) * 1_000_000).to_string();
                home.program(Path::new("bash"))
                    .arg(&script)
                    .args([&wait, &work, &lines.mount, &lines.umount])
                    .arg(place)
                    .arg("b".repeat(64))
                    .env("X", &home.binary)
                    .env("XPMFS_SETTINGS", home.path("settings.yaml"))
                    .env_remove("SLURM_JOB_ID")
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for job in jobs {
            let output = job.wait_with_output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success(),
                "round {round}: {printed}{}",
                said(&output)
            );
        }
        assert!(!is_mounted(place), "round {round}");
    }
}

#[test]
fn two_batch_jobs_in_place_never_see_the_bare_primary() {
    if common::is_root() {
        let home = Home::new(false);
        interleave(&home, &home.path("ws"));
    }
}

#[test]
fn two_batch_jobs_of_an_ordinary_user_elsewhere_never_see_the_bare_primary() {
    let home = Home::new(true);
    interleave(&home, &home.path("mnt"));
}

#[test]
fn twenty_scripts_that_mount_at_once_share_one_mount() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let lines = lines(home, &place);
        let mut scripts: Vec<Script> = (0..20).map(|_| Script::start(home)).collect();
        for script in &mut scripts {
            script.begin(&lines.mount);
        }
        for script in &mut scripts {
            let (printed, status) = script.end();
            assert_eq!(status, 0, "{printed}");
        }
        let here = mounts::xpmfs().unwrap().into_iter();
        let here = here.filter(|mount| mount.mountpoint == place).count();
        assert_eq!(here, 1);
        assert_eq!(holders(home, &place).len(), 20);
        let log = fs::read_to_string(home.log()).unwrap();
        assert_eq!(log.matches("serving ").count(), 1, "{log}");
        let (last, others) = scripts.split_last_mut().unwrap();
        for script in others {
            script.does(&lines.umount);
            assert!(is_mounted(&place));
        }
        last.does(&lines.umount);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn umount_leaves_a_mount_that_others_hold_and_names_them() {
    at_everybodys_home(|home| {
        let place = home.path("mnt");
        let lines = lines(home, &place);
        let (mut first, mut second) = (Script::start(home), Script::start(home));
        first.does(&lines.mount);
        second.does(&lines.mount);
        let text = home.does(&["status", place.to_str().unwrap()]);
        let held = format!("process {} (bash ", second.pid());
        assert!(
            text.contains("is held by") && text.contains(&held),
            "{text}"
        );
        // One that holds nothing: an error.
        let refused = home.refuses(&["umount", place.to_str().unwrap()]);
        assert!(refused.contains(&held), "{refused}");
        assert!(refused.contains("umount --lazy"), "{refused}");
        // A holder: done, as far as it is concerned.
        let printed = first.does(&lines.umount);
        assert!(printed.contains("stays mounted: held by"), "{printed}");
        assert!(printed.contains(&held), "{printed}");
        let (printed, status) = first.tries(&lines.umount);
        assert_eq!(status, 1, "{printed}");
        assert_eq!(holders(home, &place), [format!("pid:{}", second.pid())]);
        // In use: the hold stays with the mount.
        second.does(&format!("exec 9<'{}'", place.join("jobs").display()));
        let (printed, status) = second.tries(&lines.umount);
        assert!(status == 1 && printed.contains("is in use"), "{printed}");
        assert_eq!(holders(home, &place).len(), 1);
        second.does("exec 9<&-");
        second.does(&lines.umount);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn scripts_with_different_runtime_directories_share_a_mount() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let Lines { mount, umount } = lines(home, &place);
        let mut scripts = ["one", "two"].map(|name| {
            let mut script = Script::start(home);
            let directory = home.directory(name);
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&directory, mode).unwrap();
            script.does(&format!("export XDG_RUNTIME_DIR='{}'", directory.display()));
            script.does(&mount);
            // As at the end of the user's last session.
            fs::remove_dir_all(directory).unwrap();
            script
        });
        assert_eq!(holders(home, &place).len(), 2);
        let [first, second] = &mut scripts;
        first.does(&umount);
        assert!(is_mounted(&place));
        second.does(&umount);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn lazy_unmounting_asks_no_holder() {
    let home = Home::new(true);
    let place = home.path("ws");
    let mut script = Script::start(&home);
    script.does(&lines(&home, &place).mount);
    home.does(&["umount", "--lazy", place.to_str().unwrap()]);
    assert!(!is_mounted(&place));
}

#[test]
fn a_mount_that_differs_is_not_shared_and_the_difference_is_named() {
    at_everybodys_home(|home| {
        let place = home.path("mnt");
        let Lines { mount, umount } = lines(home, &place);
        let mut script = Script::start(home);
        script.does(&mount);
        let mut expect = |more: &str, difference: &str| {
            let (printed, status) = script.tries(&format!("{mount} {more}"));
            assert!(status == 1 && printed.contains(difference), "{printed}");
        };
        expect("--read-only", "read-only is false, asked for is true");
        expect("--no-archive", "archiving is true, asked for is false");
        expect("-o noatime", "atime is true, asked for is false");
        let folder = format!("--folder 'use:{}'", home.path("mnt").display());
        expect(&folder, "the list of folders is [backup:");
        let settings = home.path("settings.yaml");
        let before = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, format!("xpmfs: {{settle: 9s}}\n{before}")).unwrap();
        expect("", "settle is 2s, asked for is 9s");
        let other = format!("{mount} --workdir '{}'", home.path("kept").display());
        fs::write(&settings, before).unwrap();
        let (printed, status) = script.tries(&other);
        assert!(
            status == 1 && printed.contains("the workspace's directory is"),
            "{printed}"
        );
        // Without --shared, a second mount is refused as ever.
        let (printed, status) = script.tries(&mount.replace("--shared", ""));
        assert!(
            status == 1 && printed.contains("already has an xpmfs mount"),
            "{printed}"
        );
        let (printed, status) = script.tries(&format!("{mount} -f"));
        assert_eq!(status, 2, "{printed}");
        script.does(&umount);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn a_mount_that_was_made_without_sharing_stays_when_its_holders_leave() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let Lines { mount, umount } = lines(home, &place);
        home.mount(&[]);
        let mut script = Script::start(home);
        script.does(&mount);
        let printed = script.does(&umount);
        assert!(printed.contains("mounted without --shared"), "{printed}");
        assert!(is_mounted(&place));
        script.does(&umount);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn a_mount_of_another_user_is_not_shared() {
    if !is_root() {
        return;
    }
    let home = Home::new(false);
    home.mount(&["-o", "allow_other"]);
    let mut command = home.program(Path::new("setpriv"));
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&home.binary)
        .arg("--settings")
        .arg(home.path("settings.yaml"))
        .args(["mount", "--shared", "-w", "nlp", "--log"])
        .arg(home.path("state").join("log"))
        .args(["-o", "allow_other"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("mount of the user `root`"),
        "{}",
        said(&output)
    );
    home.does(&["umount"]);
}
