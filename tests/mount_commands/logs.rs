//! The log of a mount: what it has with `-q`, and whose lines are in a file that several mounts write.

use std::fs;

use crate::home::Home;

#[test]
fn quiet_is_for_the_terminal_and_not_for_the_log() {
    let log_of = |arguments: &[&str]| {
        let home = Home::new(false);
        let log = home.log();
        let mut command = home.xpmfs(arguments);
        let output = command.args(["mount", "--log"]).arg(&log).output().unwrap();
        assert!(output.status.success());
        home.does(&["umount"]);
        let text = fs::read_to_string(log).unwrap();
        let message = |line: &str| line.split_once("]: ").unwrap().1.to_owned();
        let mut lines: Vec<String> = text.lines().map(message).collect();
        lines.iter_mut().for_each(|line| {
            *line = line.replace(home.dir.path().to_str().unwrap(), "HOME");
        });
        (lines, output.stderr)
    };
    let infos = |lines: &[String]| {
        let lines = lines.iter().filter(|line| line.starts_with("INFO"));
        lines.cloned().collect::<Vec<_>>()
    };
    let (lines, _) = log_of(&[]);
    assert!(!infos(&lines).is_empty(), "{lines:?}");
    let (quiet, printed) = log_of(&["-q"]);
    assert_eq!(infos(&quiet), infos(&lines));
    assert_eq!(String::from_utf8_lossy(&printed), "");
}

#[test]
fn each_line_in_the_log_of_two_mounts_is_whole_and_has_its_mount() {
    let home = Home::new(false);
    let places = [home.path("ws"), home.path("mnt")].map(|path| path.to_str().unwrap().to_owned());
    for place in &places {
        home.mount(&["-v", place]);
    }
    // Both write at the same time.
    std::thread::scope(|scope| {
        for place in &places {
            let home = &home;
            scope.spawn(move || {
                for _ in 0..20 {
                    home.does(&["status", place]);
                    let _ = fs::read_dir(place).unwrap().count();
                }
            });
        }
    });
    for place in places.iter().rev() {
        home.does(&["umount", place]);
    }
    let text = fs::read_to_string(home.log()).unwrap();
    assert!(text.ends_with('\n'));
    let mut of_each = [0, 0];
    for line in text.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        time.parse::<jiff::Timestamp>().unwrap();
        let (_, rest) = rest.split_once(' ').unwrap();
        let (mount, message) = rest.split_once("]: ").unwrap();
        let (mountpoint, process) = mount.rsplit_once('[').unwrap();
        process.parse::<u32>().unwrap();
        let level = message.split(' ').next().unwrap();
        assert!(
            ["ERROR", "WARN", "INFO", "DEBUG"].contains(&level),
            "{line}"
        );
        let number = places.iter().position(|place| place == mountpoint).unwrap();
        of_each[number] += 1;
    }
    assert!(of_each.iter().all(|lines| *lines > 0), "{text}");
}
