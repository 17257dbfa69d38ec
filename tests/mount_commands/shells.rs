//! Completions, in the shells that they are for.

use std::fs;
use std::path::Path;

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
    // fish wants to keep what it knows somewhere.
    command.env("XDG_CONFIG_HOME", home.path("state"));
    command.env("XDG_DATA_HOME", home.path("state"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let home = Home::new(true);
    let offered = |words: &str| {
        let script = format!(
            "source \"$SCRIPT\"; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _xpmfs xpmfs \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[*]}}\""
        );
        run(&home, "bash", &script).trim_end().to_owned()
    };
    assert_eq!(offered("xpmfs umo"), "umount");
    assert_eq!(offered("xpmfs status --j"), "--json");
    assert!(offered("xpmfs completions ''").ends_with("bash elvish fish powershell zsh"));
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
    assert_eq!(offered("xpmfs mount -w "), "");
    assert_eq!(
        offered("xpmfs completions "),
        "bash elvish fish powershell zsh"
    );
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
