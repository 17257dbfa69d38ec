//! Machines that lack what mounting needs.

use std::process::Command;

use crate::home::{Home, is_mounted, said};

#[test]
fn what_the_machine_lacks_is_named_with_what_to_do() {
    if !crate::common::is_root() {
        return;
    }
    // Each in a mount namespace of its own: what is taken away there, and what is said about it.
    for (ordinary, lack, advice) in [
        (
            true,
            "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3",
            "modprobe fuse",
        ),
        (
            false,
            "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3",
            "--device /dev/fuse",
        ),
        (
            true,
            "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 600 /dev/fuse c 10 229",
            "chmod 666 /dev/fuse",
        ),
        (
            true,
            "for h in /usr/bin/fusermount3 /usr/bin/fusermount; do mount --bind /dev/null $h || exit 9; done",
            "apt-get install fuse3",
        ),
        (
            true,
            "cp /usr/bin/fusermount3 \"$HELPER\" && chmod 755 \"$HELPER\" && mount --bind \"$HELPER\" /usr/bin/fusermount3",
            "chmod u+s",
        ),
        (true, "drop='--no-new-privs'", "no_new_privs"),
        (
            false,
            "drop='--bounding-set=-sys_admin --inh-caps=-sys_admin'",
            "CAP_SYS_ADMIN",
        ),
    ] {
        let home = Home::new(ordinary);
        let ids = if ordinary {
            "--reuid=65534 --regid=65534 --clear-groups"
        } else {
            ""
        };
        let script = format!("{lack} || exit 9; exec setpriv $drop {ids} \"$@\"");
        let xpmfs = home.xpmfs(&[]);
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", &script, "sh"])
            .arg(&home.binary)
            .args([
                "--settings".as_ref(),
                home.path("settings.yaml").as_os_str(),
            ])
            .args(["mount", "--log"])
            .arg(home.log())
            .envs(
                xpmfs
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env_remove("XDG_RUNTIME_DIR")
            .env("HELPER", home.path("helper"))
            .current_dir("/")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{lack}: {}", said(&output));
        assert!(said(&output).contains(advice), "{lack}: {}", said(&output));
        assert_eq!(
            said(&output).lines().count(),
            1,
            "{lack}: {}",
            said(&output)
        );
        assert!(!is_mounted(&home.path("ws")));
    }
}

#[test]
fn without_mtab_the_error_names_another_way_to_unmount() {
    if !crate::common::is_root() {
        return;
    }
    let home = Home::new(true);
    let script = r#"
        set -e
        mkdir "$E" && cp /etc/passwd /etc/group /etc/ld.so.cache "$E" && mount --bind "$E" /etc
        user() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
        user "$X" --settings "$S" mount --no-archive --log "$S.log" "$M" 2>/dev/null
        user "$X" --settings "$S" umount "$M" 2>&1 && exit 8
        user umount "$M""#;
    let mut sh = Command::new("unshare");
    sh.args(["-m", "sh", "-c", script]).env("X", &home.binary);
    sh.env("E", home.path("etc")).env("M", home.path("mnt"));
    let settings = home.directory("config").join("settings.yaml");
    std::fs::copy(home.path("settings.yaml"), &settings).unwrap();
    sh.env("S", &settings).env("HOME", home.path("state"));
    sh.env_remove("XDG_RUNTIME_DIR").current_dir("/");
    let output = sh.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.lines().count(), 1, "{printed}");
    let advice = format!("run `umount '{}'`", home.path("mnt").display());
    assert!(printed.contains(&advice), "{printed}");
    assert!(printed.contains("/etc/mtab"), "{printed}");
}
