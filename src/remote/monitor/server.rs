//! The command that runs `monitor-server` on another machine.
//!
//! `sshd` starts the user's shell with a text that is the same in every shell (`shell`), which starts `sh`. The commands of `shell_init` run
//! in the user's own shell, as experimaestro runs them: `module` and `source` are not in every `sh`. What follows them is in an environment
//! variable, so that no comment, quote or parenthesis in `shell_init` can change it.

use std::ffi::OsString;

use super::super::shell::Script;
use super::words;
use crate::settings::{Ssh, Workspace};

/// What `uv tool run` runs. Older releases speak another version of the protocol.
const PACKAGE: &str = "experimaestro>=2.7.0";

/// The variable that has the command while `shell_init` runs.
const VARIABLE: &str = "XPMFS_MONITOR";

/// A monitor server on another machine.
#[derive(Debug, Clone)]
pub struct MonitorServer {
    /// The id of the workspace in the settings, or an empty one.
    pub workspace: String,
    /// The directory of the workspace there.
    pub workdir: OsString,
    /// The connection, and how the server is started.
    pub ssh: Ssh,
}

impl MonitorServer {
    /// The server of a workspace of the settings.
    #[must_use]
    pub fn of(workspace: &Workspace) -> MonitorServer {
        MonitorServer {
            workspace: workspace.id.clone(),
            workdir: OsString::from(&workspace.raw_path),
            ssh: workspace.ssh.clone().unwrap_or_default(),
        }
    }

    /// The command for `ssh`.
    ///
    /// # Errors
    ///
    /// `xpm_path` has a quote without an end.
    pub(super) fn command(&self) -> Result<String, words::OpenQuote> {
        Ok(self.command_of(self.server()?))
    }

    /// The command for `ssh` that runs a script after `shell_init`.
    pub(super) fn command_of(&self, script: Script) -> String {
        let script = Script::new()
            .add("unset ")
            .add(VARIABLE)
            .add("\n")
            .add_script(&script);
        let init = self.ssh.shell_init.as_deref().unwrap_or_default();
        if init.trim().is_empty() {
            return script.command();
        }
        let after = format!("{init}\nexec sh -c \"${VARIABLE}\"\n");
        let script = Script::new()
            .add(VARIABLE)
            .add("=")
            .word(script.as_os_str())
            .add("; export ")
            .add(VARIABLE)
            .add("\nexec \"${SHELL:-/bin/sh}\" -c ")
            .word(after)
            .add("\n");
        script.command()
    }

    /// The script that becomes the server.
    fn server(&self) -> Result<Script, words::OpenQuote> {
        let script = Script::new()
            // `$( )` removes newlines at the end, which a name may have.
            .add("w=$(")
            .enter(&self.workdir)
            .add(" && pwd && echo .) || exit 1\nw=${w%??}\nexec ");
        let program = match &self.ssh.xpm_path {
            Some(path) => words::split(path)?,
            None => self.uv(),
        };
        let mut program = program.into_iter();
        let first = program.next().unwrap_or_default();
        Ok(script
            .path(first)
            .words(program)
            .add(" experiments --workdir \"$w\" monitor-server\n"))
    }

    fn uv(&self) -> Vec<String> {
        let mut words = vec!["uv".to_owned(), "tool".to_owned(), "run".to_owned()];
        if self.ssh.uv_offline {
            words.push("--offline".to_owned());
        }
        if let Some(python) = &self.ssh.python {
            words.extend(["--python".to_owned(), python.clone()]);
        }
        words.push(PACKAGE.to_owned());
        words
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// Words that would act in a shell that reads them.
    pub(in super::super) const ODD: &str =
        "-a 'b' \"c\" $(touch PWNED) `touch PWNED` ;touch PWNED; \\ %s * ? é #~&|<>!";

    /// Runs the command as `sshd` does, with a program that prints its arguments in the place of `uv` or `xpm`.
    fn run(shell: &str, server: &MonitorServer) -> (Vec<String>, String) {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("bin");
        std::fs::create_dir_all(home.path().join(ODD)).unwrap();
        std::fs::create_dir(&bin).unwrap();
        for program in ["uv", "xpm"] {
            let program = bin.join(program);
            let text = "#!/bin/sh\necho \"$INIT\"\nfor word; do printf '%s\\0' \"$word\"; done\n";
            std::fs::write(&program, text).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(shell);
        command
            .args(["-c", &server.command().unwrap()])
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("HOME", home.path())
            .env("SHELL", shell)
            .env_remove("INIT")
            .current_dir(home.path());
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!home.path().join("PWNED").exists(), "{errors}");
        assert!(!home.path().join(ODD).join("PWNED").exists(), "{errors}");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let printed = printed.replace(&*home.path().to_string_lossy(), "HOME");
        let (init, words) = printed.split_once('\n').unwrap_or_default();
        let mut all = vec![init.to_owned()];
        all.extend(words.split_terminator('\0').map(str::to_owned));
        (all, errors)
    }

    fn server(change: impl FnOnce(&mut Ssh)) -> MonitorServer {
        let mut ssh = Ssh::default();
        change(&mut ssh);
        MonitorServer {
            workspace: String::new(),
            workdir: OsString::from(ODD),
            ssh,
        }
    }

    /// The shells of this machine that a user may have.
    pub(in super::super) fn shells() -> impl Iterator<Item = &'static str> {
        let shells = [
            "/bin/sh",
            "/bin/bash",
            "/bin/zsh",
            "/usr/bin/fish",
            "/bin/tcsh",
        ];
        shells.into_iter().filter(|shell| Path::new(shell).exists())
    }

    fn expected(init: &str, before: &[&str]) -> Vec<String> {
        let workdir = format!("HOME/{ODD}");
        let after = ["experiments", "--workdir", &workdir, "monitor-server"];
        let words = [&[init], before, &after].concat();
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn settings_arrive_as_words_in_every_shell() {
        for shell in shells() {
            let (words, errors) = run(shell, &server(|_| {}));
            let uv = ["tool", "run", "experimaestro>=2.7.0"];
            assert_eq!(words, expected("", &uv), "{shell}: {errors}");
            let with = server(|ssh| {
                ssh.uv_offline = true;
                ssh.python = Some(ODD.to_owned());
            });
            let uv = [
                "tool",
                "run",
                "--offline",
                "--python",
                ODD,
                "experimaestro>=2.7.0",
            ];
            assert_eq!(run(shell, &with).0, expected("", &uv), "{shell}");
            let with = server(|ssh| {
                ssh.xpm_path = Some("~/bin/xpm -m 'a b' $(touch${IFS}PWNED)".to_owned());
            });
            let xpm = ["-m", "a b", "$(touch${IFS}PWNED)"];
            assert_eq!(run(shell, &with).0, expected("", &xpm), "{shell}");
        }
    }

    #[test]
    fn what_shell_init_leaves_open_does_not_change_the_command() {
        for (init, is_run) in [
            ("export INIT=1", true),
            ("export INIT=1 # a comment", true),
            ("export INIT=1;", true),
            ("export INIT=1\n\n", true),
            ("export INIT=1; 'open", false),
            ("export INIT=1; (open", false),
            ("export INIT=1; exit 3", false),
        ] {
            for shell in ["/bin/sh", "/bin/bash"] {
                let (words, errors) = run(
                    shell,
                    &server(|ssh| {
                        ssh.shell_init = Some(init.to_owned());
                    }),
                );
                let uv = ["tool", "run", "experimaestro>=2.7.0"];
                let expected = if is_run {
                    expected("1", &uv)
                } else {
                    vec![String::new()]
                };
                assert_eq!(words, expected, "{shell}: {init}: {errors}");
            }
        }
        // A word of bash that `sh` need not have.
        let bash =
            server(|ssh| ssh.shell_init = Some("source /dev/null; export INIT=1".to_owned()));
        assert_eq!(run("/bin/bash", &bash).0.first().unwrap(), "1");
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let missing = MonitorServer {
            workdir: OsString::from("/missing/'x'"),
            ..server(|_| {})
        };
        let (words, errors) = run("/bin/sh", &missing);
        assert_eq!(words, [""]);
        assert!(errors.contains("/missing/'x'"), "{errors}");
    }
}
