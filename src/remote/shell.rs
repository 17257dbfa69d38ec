//! Writes commands for the shell of another machine, so that no name in them acts on it.
//!
//! The shell that `sshd` starts is the user's, and need not be a POSIX shell (csh, fish). So it gets a text of letters, digits and a few
//! characters that are the same in all of them: `exec sh -c 'eval "$(printf "\ooo…")"'`, with the script as octal numbers. In the script,
//! paths are quoted for a POSIX shell. Arguments that rsync adds come after it and become the script's `"$@"`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The name that the script has in messages of the shell; rsync's name of the host.
pub(super) const NAME: &str = "xpmfs";

/// A script for `sh`.
#[derive(Debug, Default, Clone)]
pub(super) struct Script(Vec<u8>);

impl Script {
    pub(super) fn new() -> Script {
        Script::default()
    }

    /// Adds a text as it is.
    pub(super) fn add(mut self, text: &str) -> Script {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Adds the commands of another script.
    pub(super) fn add_script(mut self, script: &Script) -> Script {
        self.0.extend_from_slice(&script.0);
        self
    }

    /// Adds a word, quoted.
    pub(super) fn word(mut self, word: impl AsRef<OsStr>) -> Script {
        quote(word.as_ref().as_bytes(), &mut self.0);
        self
    }

    /// Adds words, quoted, with spaces before them.
    pub(super) fn words<W: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = W>) -> Script {
        for word in words {
            self.0.push(b' ');
            quote(word.as_ref().as_bytes(), &mut self.0);
        }
        self
    }

    /// Adds a path, quoted. A `~/` at its start stands for the home directory.
    pub(super) fn path(self, path: impl AsRef<OsStr>) -> Script {
        let path = path.as_ref();
        match path.as_bytes().strip_prefix(b"~/") {
            Some(below) => self.add("\"$HOME\"/").word(OsStr::from_bytes(below)),
            None => self.word(path),
        }
    }

    /// Changes to a directory of the remote user: absolute, or relative to the home directory, which a `~` at the start stands for.
    pub(super) fn enter(self, path: &OsStr) -> Script {
        let (home, path) = split_home(path);
        let script = match &home {
            // The name of a user cannot be quoted; it has only letters, digits, `_`, `-` and `.`.
            Some(home) => self.add("cd ").add(home).add(" && "),
            None => self,
        };
        match path.is_empty() {
            true => script.add("cd . "),
            false => script.add("CDPATH= cd -- ").word(path),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The script as the command of an `ssh`.
    pub(super) fn command(&self) -> String {
        let mut octal = String::with_capacity(self.0.len() * 4);
        for byte in &self.0 {
            octal.push_str(&format!("\\{byte:03o}"));
        }
        format!("exec sh -c 'eval \"$(printf \"{octal}\")\"'")
    }
}

/// A path's `~` or `~user`, if it begins with one, and the rest.
fn split_home(path: &OsStr) -> (Option<String>, &OsStr) {
    let bytes = path.as_bytes();
    let Some(rest) = bytes.strip_prefix(b"~") else {
        return (None, path);
    };
    let end = rest
        .iter()
        .position(|byte| *byte == b'/')
        .unwrap_or(rest.len());
    let (user, below) = rest.split_at(end);
    let is_name = user
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte));
    match std::str::from_utf8(user) {
        Ok(user) if is_name => {
            let below = below
                .iter()
                .position(|byte| *byte != b'/')
                .map(|at| &below[at..]);
            (
                Some(format!("~{user}")),
                OsStr::from_bytes(below.unwrap_or_default()),
            )
        }
        _ => (None, path),
    }
}

/// Quotes a word for a POSIX shell.
fn quote(word: &[u8], into: &mut Vec<u8>) {
    into.push(b'\'');
    for byte in word {
        match byte {
            b'\'' => into.extend_from_slice(b"'\\''"),
            _ => into.push(*byte),
        }
    }
    into.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const ODD: &str = "-n 'a' \"b\" $(id) `id` \\ \\n %s %% * ~ ! ;#\n\té\n";

    /// What a shell prints for the command, as `sshd` starts it.
    fn prints(shell: &str, command: &str) -> Vec<u8> {
        Command::new(shell)
            .args(["-c", command])
            .output()
            .unwrap()
            .stdout
    }

    #[test]
    fn words_arrive_in_every_shell_as_they_are() {
        let odd = [ODD.as_bytes(), b"\xff\x01"].concat();
        let odd = OsStr::from_bytes(&odd);
        let script = Script::new().add("printf '<%s>' ").word(odd).add(" \"$@\"");
        let command = format!("{} {NAME} more", script.command());
        for shell in ["sh", "bash", "zsh", "fish", "dash", "tcsh"] {
            if Command::new(shell).args(["-c", "true"]).status().is_err() {
                continue;
            }
            let expected = [b"<", odd.as_bytes(), b"><more>"].concat();
            assert_eq!(prints(shell, &command), expected, "{shell}");
        }
    }

    #[test]
    fn a_tilde_is_the_home_directory_and_nothing_else_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        for name in ["-x", "$(id)", "a\nb\n", "~"] {
            std::fs::create_dir(home.join(name)).unwrap();
        }
        for (path, expected) in [
            ("~", ""),
            ("~/", ""),
            ("~/-x", "-x"),
            ("-x", "-x"),
            ("~//$(id)", "$(id)"),
            ("a\nb\n", "a\nb\n"),
            ("~/~", "~"),
        ] {
            let script = Script::new().enter(OsStr::new(path)).add(" && pwd -P");
            let mut command = Command::new("sh");
            command.arg("-c").arg(OsStr::from_bytes(script.as_bytes()));
            let output = command
                .env("HOME", &home)
                .current_dir(&home)
                .output()
                .unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            let below = if expected.is_empty() {
                home.clone()
            } else {
                home.join(expected)
            };
            assert_eq!(
                printed,
                format!("{}\n", below.display()),
                "{path}: {script:?}"
            );
        }
        let (user, rest) = split_home(OsStr::new("~$(id)/x"));
        assert_eq!((user, rest), (None, OsStr::new("~$(id)/x")));
    }
}
