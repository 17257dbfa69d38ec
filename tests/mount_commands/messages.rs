//! What is said, to whom, and how often.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use crate::home::{Home, at_everybodys_home, is_mounted, said};

/// One line on standard error, with all of `parts`.
#[track_caller]
fn one_line(output: &Output, parts: &[&str]) {
    let said = said(output);
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn wrong_usage_has_an_exit_status_of_its_own_and_says_what_there_is() {
    let home = Home::new(true);
    for (option, advice) in [
        ("alow_other", "did you mean `allow_other`?"),
        ("foo", "the options are ro, rw"),
        ("nonempty", "leave it out"),
        ("auto_unmount", "leave it out"),
        ("uid=5", "leave it out"),
        ("subtype=other", "fuse.xpmfs"),
    ] {
        let wrong = home.xpmfs(&["mount", "-o", option]).output().unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{option}: {}", said(&wrong));
        one_line(&wrong, &[advice]);
    }
    for wrong in [
        &["mount", "--folder", "keep:/x"][..],
        &["--json", "umount"],
        &["mount", "--json"],
    ] {
        let wrong = home.xpmfs(wrong).output().unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    }
    assert!(!is_mounted(&home.path("ws")));
}

#[test]
fn what_fstab_carries_along_is_taken() {
    at_everybodys_home(|home| {
        let options = "defaults,_netdev,noauto,nofail,user=me,relatime,x-systemd.automount,noatime";
        home.mount(&["-o", options]);
        home.does(&["umount"]);
    });
}

#[test]
fn a_workspace_that_is_no_directory_is_to_blame_itself() {
    at_everybodys_home(|home| {
        let mnt = home.path("mnt");
        for place in [&[][..], &[mnt.to_str().unwrap()]] {
            for (workdir, words) in [
                (
                    "/etc/passwd",
                    "the workspace /etc/passwd is not a directory",
                ),
                ("/etc/passwd/x", "lies below a file"),
                ("/nowhere", "/nowhere does not exist"),
            ] {
                let arguments = [&["mount", "--workdir", workdir], place].concat();
                let refused = home.xpmfs(&arguments).output().unwrap();
                assert_eq!(refused.status.code(), Some(1));
                one_line(&refused, &[words, "correct the path"]);
                assert!(!said(&refused).contains("os error"), "{}", said(&refused));
            }
        }
    });
}

#[test]
fn a_directory_that_is_no_workspace_is_mounted_with_a_hint() {
    at_everybodys_home(|home| {
        let (new, log) = (home.directory("new"), home.log());
        let mount = |more: &[&str]| {
            let arguments = ["mount", "--log", log.to_str().unwrap(), "--workdir"];
            let arguments = [&arguments[..], &[new.to_str().unwrap()], more].concat();
            let output = home.xpmfs(&arguments).output().unwrap();
            assert!(output.status.success(), "{}", said(&output));
            home.does(&["umount", new.to_str().unwrap()]);
            output
        };
        one_line(
            &mount(&[]),
            &[
                "xpmfs: note: ",
                "mounting it as a new workspace",
                "check the path",
            ],
        );
        assert_eq!(said(&mount(&["-q"])), "");
        fs::create_dir(new.join("jobs")).unwrap();
        assert_eq!(said(&mount(&[])), "");
    });
}

#[test]
fn a_daemon_has_the_program_s_name() {
    at_everybodys_home(|home| {
        home.mount(&[]);
        let pid = home.daemon(&home.path("ws"));
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        assert_eq!(name, "xpmfs\n");
        home.does(&["umount"]);
    });
}

#[test]
fn a_folder_that_is_missing_is_warned_of_once() {
    at_everybodys_home(|home| {
        let log = home.log();
        let arguments = ["mount", "--log", log.to_str().unwrap()];
        let output = home
            .xpmfs(&[&arguments[..], &["--folder", "use:/gone"]].concat())
            .output()
            .unwrap();
        one_line(&output, &["/gone does not exist", "correct the path"]);
        home.does(&["umount"]);
    });
}

#[test]
fn the_directory_of_a_log_file_is_not_made() {
    at_everybodys_home(|home| {
        let file = home.path("loggs/log");
        let refused = home
            .xpmfs(&["mount", "--log", file.to_str().unwrap()])
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(1));
        one_line(&refused, &["mkdir -p", "another --log"]);
        assert!(!home.path("loggs").exists() && !is_mounted(&home.path("ws")));
    });
}

#[test]
fn a_person_at_a_terminal_is_told_what_is_mounted_and_nobody_else() {
    at_everybodys_home(|home| {
        let (mnt, log, settings) = (home.path("mnt"), home.log(), home.path("settings.yaml"));
        let helper = home.path("mount.fuse.xpmfs");
        symlink(&home.binary, &helper).unwrap();
        // script(1) runs a command at a terminal of its own.
        let at_a_terminal = |command: &str| {
            let output = home
                .program(Path::new("script"))
                .args(["-qec", command, "/dev/null"])
                .env("XPMFS", &home.binary)
                .env("MOUNT_HELPER", &helper)
                .env("SETTINGS", &settings)
                .env("LOG", &log)
                .env("MNT", &mnt)
                .output()
                .unwrap();
            assert!(output.status.success(), "{command}: {output:?}");
            home.does(&["umount", "-w", "nlp"]);
            String::from_utf8(output.stdout).unwrap()
        };
        let mount = "\"$XPMFS\" --settings \"$SETTINGS\" mount --log \"$LOG\"";
        let told = at_a_terminal(mount);
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(
            told.contains("nlp, with 1 folder, is mounted in place at")
                && told.contains("xpmfs umount"),
            "{told}"
        );
        let told = at_a_terminal(&format!("{mount} \"$MNT\""));
        assert!(told.contains("is mounted at"), "{told}");
        assert_eq!(at_a_terminal(&format!("{mount} -q")), "");
        // A name with blanks would have to be escaped for mount(8)'s options.
        let helped = "\"$MOUNT_HELPER\" nlp \"$MNT\" -o \"settings=$SETTINGS,log=$LOG\"";
        assert_eq!(at_a_terminal(helped), "");
        let piped = home.xpmfs(&["mount", "--log", log.to_str().unwrap()]);
        let piped = { piped }.output().unwrap();
        assert_eq!(said(&piped), "");
        home.does(&["umount"]);
    });
}

#[test]
fn nothing_is_said_when_nobody_reads_on() {
    let home = Home::new(true);
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["man"],
        &["completions", "zsh"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = home.xpmfs(arguments).stdout(writer).output().unwrap();
        assert_eq!(said(&output), "", "{arguments:?}");
    }
}

#[test]
fn mount_8_s_helper_helps() {
    let home = Home::new(true);
    let helper = home.path("mount.fuse.xpmfs");
    symlink(&home.binary, &helper).unwrap();
    for (argument, words) in [("-h", "Usage: mount.fuse.xpmfs"), ("-V", "xpmfs 0")] {
        let output = home.program(&helper).arg(argument).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains(words), "{printed}");
    }
    let wrong = home.program(&helper).arg("nlp").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn status_says_what_is_wrong_with_a_directory_and_what_to_do() {
    let home = Home::new(true);
    fs::remove_dir_all(home.path("kept")).unwrap();
    fs::write(home.path("kept"), "a file").unwrap();
    let table = home.does(&["status"]);
    assert!(!table.contains("os error"), "{table}");
    assert!(table.contains("not a directory"), "{table}");
    assert!(table.contains("correct the path"), "{table}");
    let status = home.status(&[]);
    assert_eq!(
        status["workspaces"][0]["locations"][1]["state"],
        "not a directory"
    );
}

#[test]
fn mounts_of_others_say_whose_they_are_and_whom_to_ask() {
    if !crate::common::is_root() {
        return;
    }
    let (roots, other) = (Home::new(false), Home::new(true));
    roots.mount(&[]);
    let ws = roots.path("ws");
    let status = other.status(&[ws.to_str().unwrap()]);
    assert_eq!(status["mounts"][0]["state"], "of another user");
    assert_eq!(status["mounts"][0]["user"], "root");
    let table = other.does(&["status", ws.to_str().unwrap()]);
    assert!(
        table.contains("the user `root` mounted it, and for no other")
            && table.contains("allow_other"),
        "{table}"
    );
    for drain in [&[][..], &["--drain"]] {
        let arguments = [&["umount"], drain, &[ws.to_str().unwrap()]].concat();
        let refused = other.xpmfs(&arguments).output();
        one_line(
            &refused.unwrap(),
            &["only that user and root may unmount it"],
        );
    }
    let refused = other.xpmfs(&["mount", "--workdir"]).arg(&ws).output();
    one_line(&refused.unwrap(), &["root", "mount elsewhere"]);
    roots.does(&["umount"]);
    roots.mount(&["-o", "allow_other"]);
    let table = other.does(&["status", ws.to_str().unwrap()]);
    assert!(table.contains("the user `root` mounted it:"), "{table}");
    roots.does(&["umount"]);
}

/// `jobs path` prints no listing: the option is not taken for a value.
#[test]
fn json_of_a_command_without_a_listing_is_explained() {
    let home = Home::new(false);
    for command in ["path", "log"] {
        let output = home.xpmfs(&["jobs", command, "--json", "t"]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = said(&output);
        assert!(
            said.contains("has no JSON form") && !said.contains("as a value"),
            "{said}"
        );
    }
}

/// The parser's own tip, `-- -w`, is no help.
#[test]
fn an_option_in_the_wrong_place_is_explained() {
    let home = Home::new(true);
    for (wrong, tip) in [
        (
            &["-w", "nlp", "jobs", "list"][..],
            "-w comes after the command",
        ),
        (
            &["jobs", "--workspace", "nlp", "list"],
            "--workspace comes after",
        ),
        (&["jobs", "release", "--all"], "the glob '*' names all jobs"),
    ] {
        let output = home.xpmfs(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(tip), "{wrong:?}: {}", said(&output));
    }
}

/// A shell reads the suggested command as one word a path, whatever the path.
#[test]
fn a_path_in_a_suggested_command_is_quoted() {
    at_everybodys_home(|home| {
        home.mount(&[]);
        let again = home.xpmfs(&["mount", "-w", "nlp"]).output().unwrap();
        let quoted = format!("`xpmfs umount '{}'`", home.path("ws").display());
        assert!(said(&again).contains(&quoted), "{}", said(&again));
        home.does(&["umount"]);
    });
}
