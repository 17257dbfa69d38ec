//! MountInfo options with an effect on what the daemon does: `noatime` and `remount`.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};

use xpmfs::daemon::mounts::{self, MountInfo};
use xpmfs::sys::deadline::wait_until;

use crate::home::{Home, LIMIT, NOBODY, at_everybodys_home, is_root, said};

/// Writes a file, which belongs to the home's user.
fn write(home: &Home, name: &str) {
    let path = home.path(name);
    fs::write(&path, "contents\n".repeat(20_000)).unwrap();
    if is_root() && home.ordinary {
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

#[test]
fn noatime_leaves_the_times_of_access_of_all_that_is_read() {
    at_everybodys_home(|home| {
        let (own, archived) = (
            format!("jobs/t/{}", "a".repeat(64)),
            format!("jobs/t/{}", "b".repeat(64)),
        );
        write(home, "ws/file");
        write(home, &format!("ws/{own}/file"));
        write(home, &format!("kept/{archived}/file"));
        let beneath = [
            "ws".into(),
            "ws/file".into(),
            "ws/jobs".into(),
            "ws/jobs/t".into(),
            "kept/jobs/t".into(),
            format!("ws/{own}"),
            format!("ws/{own}/file"),
            format!("kept/{archived}"),
            format!("kept/{archived}/file"),
        ];
        // Old, so that a disk with `relatime` would move them, too.
        for name in &beneath {
            let old = "2001-02-03 04:05:06 UTC";
            let mut touch = home.program(Path::new("touch"));
            let touched = touch.args(["-a", "-d", old]).arg(home.path(name)).status();
            assert!(touched.unwrap().success());
        }
        let mnt = home.path("mnt");
        home.mount(&["--no-archive", "-o", "noatime", mnt.to_str().unwrap()]);
        // Open for reading, and for reading and writing.
        let script = r#"cd "$MNT" && ls -R . >/dev/null && find . -type f -exec cat {} + | wc -c && head -c 9 <>file &&
            cat <>"$JOB/file" | wc -c"#;
        let mut read = home.program(Path::new("sh"));
        let read = read.args(["-c", script]).env("MNT", &mnt).env("JOB", &own);
        let output = read.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert!(output.stdout.starts_with(b"540000\n"), "{output:?}");
        let old = 981_173_106;
        for name in &beneath {
            let path = home.path(name);
            assert_eq!(fs::metadata(&path).unwrap().atime(), old, "{name} on disk");
            let name = name.split_once('/').map_or("", |(_, name)| name);
            let mut stat = home.program(Path::new("stat"));
            let stat = stat.args(["-c", "%X"]).arg(mnt.join(name)).output();
            let seen = String::from_utf8(stat.unwrap().stdout).unwrap();
            assert_eq!(seen.trim(), old.to_string(), "{name} in the mount");
        }
        home.does(&["umount", mnt.to_str().unwrap()]);
    });
}

#[test]
fn options_that_only_root_may_give_are_reported_on_one_line() {
    let home = Home::new(true);
    let mnt = home.path("mnt");
    let arguments = [
        "mount",
        "--no-archive",
        "-o",
        "suid,dev",
        mnt.to_str().unwrap(),
    ];
    let output = home.xpmfs(&arguments).output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let warning = said.lines().find(|line| line.contains("suid ignored"));
    let warning = warning.expect("a warning about suid");
    assert!(warning.contains("dev ignored; "), "{said}");
    assert!(!said.contains("\\n"), "{said}");
    let mount = options_of(&mnt);
    assert!(mount.has_option("nosuid") && mount.has_option("nodev"));
    home.does(&["umount", mnt.to_str().unwrap()]);
}

/// Calls the helper as mount(8) does for `mount -o remount,...`: with all the options that are to hold.
fn remount(home: &Home, mut program: impl FnMut(&Path) -> Command, options: &str) -> Output {
    let helper = home.path("mount.fuse.xpmfs");
    if !helper.is_symlink() {
        symlink(&home.binary, &helper).unwrap();
    }
    let mut command = program(&helper);
    command.arg("nlp").arg(home.path("mnt"));
    command.args(["-o", options]).output().unwrap()
}

fn options_of(mount: &Path) -> MountInfo {
    mounts::top_at(mount).unwrap().expect("a mount")
}

#[test]
fn an_ordinary_user_who_remounts_is_told_to_mount_again() {
    let home = Home::new(true);
    let mnt = home.path("mnt");
    home.mount(&["--no-archive", "--read-only", mnt.to_str().unwrap()]);
    let output = remount(&home, |helper| home.program(helper), "rw,remount");
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("only root") && said.contains("xpmfs umount"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    if is_root() {
        // With the rights of a daemon that is not root's.
        let output = remount(&home, |helper| Command::new(helper), "rw,remount");
        assert!(output.status.success(), "{output:?}");
        let mount = options_of(&mnt);
        assert!(!mount.is_read_only() && mount.has_option("nosuid") && mount.has_option("nodev"));
    }
    home.does(&["umount", mnt.to_str().unwrap()]);
}

#[test]
fn root_changes_a_live_mount() {
    if !crate::common::is_root() {
        return;
    }
    let home = Home::new(false);
    let (mnt, file) = (home.path("mnt"), home.path("mnt/file"));
    home.mount(&["--no-archive", "--read-only", mnt.to_str().unwrap()]);
    let asks = |options: &str| remount(&home, |helper| home.program(helper), options);
    let changes = |options: &str| {
        let output = asks(options);
        assert!(output.status.success(), "{options}: {}", said(&output));
        options_of(&mnt)
    };
    let refused = |options: &str, advice: &str| {
        let output = asks(options);
        let said = said(&output);
        assert!(!output.status.success() && said.contains(advice), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    };
    assert!(fs::write(&file, "x").is_err());
    // What mount(8) merges in from the table of mounts.
    let merged = "relatime,remount,user_id=0,group_id=0,default_permissions";
    let mount = changes(&format!("rw,nosuid,nodev,noexec,{merged}"));
    assert!(!mount.is_read_only() && mount.has_option("nosuid") && mount.has_option("noexec"));
    let mount = changes(&format!("rw,nodev,{merged}"));
    let has = |option| mount.has_option(option);
    assert!(
        !has("nosuid") && has("nodev") && !has("noexec"),
        "{mount:?}"
    );
    fs::write(&file, "x").unwrap();
    assert_eq!(fs::read(home.path("ws/file")).unwrap(), b"x");
    let open = File::options().append(true).open(&file).unwrap();
    refused("ro,remount", "open for writing");
    drop(open);
    // The kernel closes the file in the background.
    assert!(wait_until(LIMIT, || {
        let options = "ro,nosuid,settings=/nowhere,nofail,remount";
        asks(options).status.success()
    }));
    assert!(options_of(&mnt).is_read_only());
    assert!(fs::write(&file, "y").is_err() && fs::remove_file(&file).is_err());
    let status = home.status(&[mnt.to_str().unwrap()]);
    assert_eq!(status["mounts"][0]["read_only"], true);
    // What the command line does not name stays.
    home.does(&["mount", "-o", "remount,rw", mnt.to_str().unwrap()]);
    assert!(!options_of(&mnt).is_read_only() && options_of(&mnt).has_option("nosuid"));
    fs::remove_file(&file).unwrap();
    // Decided when mounting, another's, misspelt.
    refused("allow_other,remount", "`allow_other` cannot be changed");
    refused("noatime,remount", "`noatime` cannot be changed");
    refused("user_id=7,remount", "decides that for itself");
    let wrong = asks("noexce,remount");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said(&wrong).contains("did you mean `noexec`?"), "{wrong:?}");
    home.does(&["umount", mnt.to_str().unwrap()]);
    refused("ro,remount", "has no xpmfs mount");
    let said = home.refuses(&["mount", "-o", "remount,ro"]);
    assert!(said.contains("needs the mount point"), "{said}");
}
