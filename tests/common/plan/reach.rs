//! An interpreter that the user of a workspace can run.
//!
//! Tests that root runs become somebody else, who may not enter the directories of whoever has built
//! and installed things (`/root`, say). Nothing is changed or copied for that: each command gets a
//! mount namespace of its own, in which the directories of the interpreter, and nothing else of what
//! lies beside them, can be entered at their own paths. It goes with the last process in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::skip;
use crate::common::{Workspace, run};

/// In a mount namespace of its own: covers up the directories before the first `--` by empty ones that
/// can be entered, puts those before the second `--` back in them, and runs the command.
/// `$0` is an empty directory to work in.
const SCRIPT: &str = r#"
set -e
umask 022
mount -t tmpfs -o mode=755 tmpfs "$0"
part=cover i=0
for argument; do
    case $part,$argument in
        cover,--) part=keep ;;
        keep,--) break ;;
        keep,*) i=$((i + 1)); mkdir "$0/$i"; mount --rbind "$argument" "$0/$i" ;;
    esac
done
while [ "$1" != -- ]; do mount -t tmpfs -o mode=755 tmpfs "$1"; shift; done
shift
i=0
while [ "$1" != -- ]; do
    i=$((i + 1)); mkdir -p "$1"; mount --rbind "$0/$i" "$1"; shift
done
shift
exec "$@"
"#;

/// A Python that has experimaestro.
pub(crate) struct Interpreter {
    python: PathBuf,
    /// Directories that the user cannot enter, and on the way.
    covered: Vec<PathBuf>,
    /// The interpreter's own directories below them.
    kept: Vec<PathBuf>,
    scratch: PathBuf,
}

impl Interpreter {
    /// An interpreter for the user who does things in a workspace; `None` if that user cannot run it
    /// whatever we do, and the test may be skipped.
    pub(crate) fn for_user_of(workspace: &Workspace, python: PathBuf) -> Option<Interpreter> {
        let scratch = workspace.top().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let (mut covered, mut kept) = (Vec::new(), Vec::new());
        if workspace.is_of_another_user() {
            for directory in directories(&python) {
                if let Some(obstacle) = obstacle(&directory) {
                    covered.push(obstacle);
                    kept.push(directory);
                }
            }
            covered.sort();
            covered.dedup();
        }
        let interpreter = Interpreter {
            python,
            covered,
            kept,
            scratch,
        };
        interpreter.works(workspace).then_some(interpreter)
    }

    /// A command that runs the interpreter as the user of the workspace.
    pub(crate) fn command(&self, workspace: &Workspace) -> Command {
        let mut command = workspace.command(&self.python);
        if !self.covered.is_empty() {
            let inner = command;
            command = Command::new("unshare");
            command
                .args(["--mount", "--propagation", "slave", "sh", "-c", SCRIPT])
                .arg(&self.scratch)
                .args(&self.covered)
                .arg("--")
                .args(&self.kept)
                .arg("--")
                .arg(inner.get_program())
                .args(inner.get_args());
            command.current_dir(workspace.top());
            for (name, value) in inner.get_envs() {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
        }
        command
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("XDG_CONFIG_HOME");
        command
    }

    fn works(&self, workspace: &Workspace) -> bool {
        let mut command = self.command(workspace);
        let output = command
            .args(["-c", "import experimaestro"])
            .output()
            .unwrap();
        if output.status.success() {
            return true;
        }
        skip(&format!(
            "{} cannot be run by an ordinary user: {}",
            self.python.display(),
            String::from_utf8_lossy(&output.stderr)
        ));
        false
    }
}

/// The directories that an interpreter needs: of its environment, and of the Python it is made from.
fn directories(python: &Path) -> Vec<PathBuf> {
    let program = "import sys; print(sys.prefix); print(sys.base_prefix)";
    let mut printed: Vec<PathBuf> = run(Command::new(python).args(["-c", program]))
        .lines()
        .map(PathBuf::from)
        .collect();
    printed.sort();
    printed.dedup();
    printed
}

/// The first directory on the way to `path` that not everybody may enter.
fn obstacle(path: &Path) -> Option<PathBuf> {
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    ancestors
        .into_iter()
        .find(|ancestor| {
            let mode = fs::metadata(ancestor).unwrap().permissions().mode();
            mode & 0o001 == 0
        })
        .map(Path::to_owned)
}
