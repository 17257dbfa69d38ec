//! Completions in shells, and manual pages.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common;
use crate::home::Home;

/// What a shell prints that runs a script; `SCRIPT` is the file of its completions.
fn run(home: &Home, shell: &str, script: &str) -> String {
    let file = home.path(format!("completions.{shell}"));
    fs::write(&file, home.does(&["completions", shell])).unwrap();
    // A terminal that never shows what is waited for must not hold up everything.
    let mut command = home.program(Path::new("timeout"));
    command
        .args(["60", shell, "-c", script])
        .env("SCRIPT", file);
    // The script asks the `xpmfs` in PATH.
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", home.path("").display()));
    // fish wants to keep what it knows somewhere.
    command.env("XDG_CONFIG_HOME", home.path("state"));
    command.env("XDG_DATA_HOME", home.path("state"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell}");
    String::from_utf8(output.stdout).unwrap()
}

/// What bash offers for the last of these words.
fn bash(home: &Home, words: &str) -> String {
    let script = format!(
        "source \"$SCRIPT\"; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
         _clap_complete_xpmfs xpmfs \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[*]}}\""
    );
    run(home, "bash", &script).trim_end().to_owned()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let home = Home::new(true);
    let offered = |words: &str| bash(&home, words);
    assert_eq!(offered("xpmfs umo"), "umount");
    assert_eq!(offered("xpmfs status --j"), "--json");
    assert_eq!(offered("xpmfs completions f"), "fish");
    assert_eq!(offered("xpmfs __a"), "");
    assert_eq!(offered("xpmfs mount --slo"), "");
}

#[test]
fn workspaces_jobs_and_mount_points_are_completed_from_the_disk() {
    let home = Home::new(true);
    let settings = home.path("settings.yaml");
    let offered = |words: &str| {
        let settings = format!("xpmfs --settings '{}'", settings.display());
        bash(&home, &words.replacen("xpmfs", &settings, 1))
    };
    let (a, b) = ("a".repeat(64), "b".repeat(64));
    assert_eq!(offered("xpmfs mount -w ''"), "nlp gone");
    assert_eq!(offered("xpmfs mount -w n"), "nlp");
    assert_eq!(offered("xpmfs jobs verify -w nlp t"), "t/");
    // One is in the primary, one in the folder.
    assert_eq!(
        offered("xpmfs jobs verify -w nlp t/"),
        format!("t/{a} t/{b}")
    );
    assert_eq!(offered("xpmfs jobs recover t/b"), format!("t/{b}"));
    assert_eq!(offered("xpmfs jobs archive aa"), a);
    assert_eq!(offered("xpmfs jobs opt-out -w gone t"), "");
    assert_eq!(offered("xpmfs jobs undelete -w nlp t"), "");
    home.does(&["jobs", "delete", "-w", "nlp", "--yes", &format!("t/{a}")]);
    assert_eq!(offered("xpmfs jobs verify -w nlp t/"), format!("t/{b}"));
    for command in ["jobs undelete", "trash empty"] {
        assert_eq!(
            offered(&format!("xpmfs {command} -w nlp t/")),
            format!("t/{a}")
        );
    }
    home.does(&["jobs", "undelete", "-w", "nlp", &a]);
    std::fs::create_dir_all(home.path("ws/experiments/tune")).unwrap();
    assert_eq!(offered("xpmfs experiments runs -w nlp t"), "tune");
    std::fs::create_dir_all(home.path("ws/experiments/tune/20260101_000000")).unwrap();
    let copy = "xpmfs experiments copy --from-workspace nlp";
    assert_eq!(offered(&format!("{copy} t")), "tune");
    let runs = offered(&format!("{copy} --to-workspace gone tune 2"));
    assert_eq!(runs, "20260101_000000");
    assert_eq!(offered("xpmfs jobs list -x t"), "tune");
    assert_eq!(offered("xpmfs jobs list -w nlp --location pr"), "primary");
    home.mount(&[]);
    let ws = home.path("ws");
    let prefix = format!(
        "'{}/w'",
        home.path("").display().to_string().trim_end_matches('/')
    );
    assert_eq!(
        offered(&format!("xpmfs umount {prefix}")),
        ws.to_str().unwrap()
    );
    assert_eq!(
        offered(&format!("xpmfs status {prefix}")),
        ws.to_str().unwrap()
    );
    // In place, the jobs are read through the mount.
    assert_eq!(offered("xpmfs jobs verify t/"), format!("t/{a} t/{b}"));
    home.does(&["umount"]);
}

#[test]
fn a_folder_that_does_not_answer_does_not_keep_the_shell_waiting() {
    let (home, silent) = (Home::new(false), Home::new(false));
    silent.mount(&[]);
    let place = silent.path("ws");
    let pid = Pid::from_raw(silent.daemon(&place)).unwrap();
    let settings = home.path("settings.yaml");
    let text = fs::read_to_string(&settings).unwrap();
    let kept = home.path("kept").display().to_string();
    fs::write(&settings, text.replace(&kept, place.to_str().unwrap())).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let begun = Instant::now();
    let offered = bash(
        &home,
        &format!("xpmfs --settings '{}' jobs verify t/", settings.display()),
    );
    let took = begun.elapsed();
    kill_process(pid, Signal::CONT).unwrap();
    silent.does(&["umount"]);
    assert_eq!(offered, format!("t/{}", "a".repeat(64)));
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn fish_completes_commands_options_and_values() {
    if common::program("fish").is_none() {
        return;
    }
    let home = Home::new(true);
    let offered = |line: &str| {
        let script = format!("source $SCRIPT; complete -C '{line}'");
        let printed = run(&home, "fish", &script);
        let words = printed.lines().filter_map(|line| line.split('\t').next());
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(offered("xpmfs umo"), "umount");
    assert_eq!(offered("xpmfs --json status --j"), "--json");
    assert_eq!(offered("xpmfs completions f"), "fish");
}

#[test]
fn zsh_completes_commands_options_and_values() {
    if common::program("zsh").is_none() {
        return;
    }
    let home = Home::new(true);
    // An interactive shell at a terminal of its own, from its prompt on: before, it is the terminal that echoes. What is typed
    // after the tab is shown after what is offered.
    let script = r#"
        zmodload zsh/zpty
        mkdir -p $HOME/state/functions && cp $SCRIPT $HOME/state/functions/_xpmfs
        zpty shell 'TERM=dumb zsh -f -i'
        zpty -w shell 'fpath=($HOME/state/functions $fpath); autoload -U compinit; compinit -u -D; PS1="re""ady"'
        zpty -r shell shown '*ready*'
        for line in 'umo' 'status --j' 'mount --folder ' 'mount -w ' 'completions f'; do
            zpty -n -w shell "xpmfs $line"$'\t'"typed"
            zpty -r shell shown '*typed*'
            print -r -- "$shown"
            zpty -n -w shell $'\C-u'
        done
        zpty -d shell
    "#;
    let shown = run(&home, "zsh", script).replace('\u{8}', "");
    for whole in ["xpmfs umount", "status --json", "completions fish"] {
        assert!(shown.contains(whole), "no {whole:?} in {shown}");
    }
    for wrong in ["command not found", "_arguments", "state"] {
        assert!(!shown.contains(wrong), "{wrong:?} in {shown}");
    }
}

#[test]
fn completions_and_manual_pages_are_printed() {
    let home = Home::new(true);
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            home.does(&["completions", shell])
                .contains("XPMFS_COMPLETE")
        );
    }
    assert!(home.does(&["man"]).starts_with(".ie"));
    let dir = home.directory("man");
    home.does(&["man", "--dir", dir.to_str().unwrap()]);
    let page = fs::read_to_string(dir.join("xpmfs-mount.1")).unwrap();
    assert!(page.contains("allow_other") && !page.contains("in\\-background"));
    assert!(!dir.join("xpmfs-probe.1").exists());
}
