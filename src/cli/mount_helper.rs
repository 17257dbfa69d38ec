//! `mount.fuse.xpmfs`: the program as mount(8) calls it, for `mount -t fuse.xpmfs`, `/etc/fstab`, autofs and systemd.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::daemon::options::escape;

/// The names under which mount(8) calls us.
const NAMES: [&str; 2] = ["mount.fuse.xpmfs", "mount.xpmfs"];

/// Sources that name no workspace: it is in the options then.
const NO_SOURCE: [&str; 3] = ["none", "xpmfs", "-"];

/// How it is used.
const USAGE: &str = "Usage: mount.fuse.xpmfs SOURCE MOUNTPOINT [-sfnvhV] [-o OPTIONS] [-t TYPE]";

/// What the arguments mean.
const HELP: &str = "
Mounts an experimaestro workspace for mount(8): mount -t fuse.xpmfs SOURCE MOUNTPOINT -o OPTIONS

SOURCE is a workspace's id in the settings, or its absolute path.

  -o OPTIONS  mount options, with commas between them; also workspace=ID, settings=FILE, folder=MODE:PATH, log=FILE
  -s          leave out options that are not known, and warn of them
  -f          do nothing, as a rehearsal
  -n          write no /etc/mtab; there is none anyway
  -v          say more
  -t TYPE     the type, which is always fuse.xpmfs
  -h, -V      this help; the version

See xpmfs-mount(1), or `xpmfs mount --help`.
";

/// What the program was asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// To run with these arguments, which `xpmfs` takes.
    Run(Vec<OsString>),
    /// To do nothing: mount(8)'s rehearsal (`-f`).
    Rehearse,
    /// To print this.
    Print(String),
}

/// What the program is asked to do: mount(8)'s arguments are translated to those of `xpmfs mount`, others stay.
///
/// The source is a workspace's id, or the absolute path of one.
///
/// # Errors
///
/// What is not understood, with the usage.
pub fn arguments(given: impl IntoIterator<Item = OsString>) -> Result<Invocation, String> {
    asked(given, rustix::process::geteuid().is_root())
}

fn asked(given: impl IntoIterator<Item = OsString>, root: bool) -> Result<Invocation, String> {
    let mut given = given.into_iter();
    let program = given.next().unwrap_or_else(|| "xpmfs".into());
    if !is_ours(&program) {
        return Ok(Invocation::Run(
            std::iter::once(program).chain(given).collect(),
        ));
    }
    translate(given, root).map_err(|why| {
        let name = Path::new(&program).file_name().unwrap_or_default();
        format!("{}: {why}\n{USAGE}", name.to_string_lossy())
    })
}

/// Whether mount(8) has called this process.
#[must_use]
pub(super) fn has_called() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|program| is_ours(&program))
}

fn is_ours(program: &OsStr) -> bool {
    let name = Path::new(program).file_name().unwrap_or_default();
    NAMES.iter().any(|known| name == *known)
}

fn translate(given: impl Iterator<Item = OsString>, root: bool) -> Result<Invocation, String> {
    let mut given = given;
    let mut places = Vec::new();
    let mut translated: Vec<OsString> = vec!["xpmfs".into(), "mount".into()];
    let mut options = Vec::new();
    while let Some(argument) = given.next() {
        match argument.to_str() {
            Some("-o") => options.push(given.next().ok_or("-o needs options")?),
            // The type can only be ours.
            Some("-t") => drop(given.next()),
            Some("-N") => {
                return Err("mount namespaces (-N) are not supported: use nsenter(1)".into());
            }
            Some("--in-background") => translated.push(argument),
            Some("--help") => return Ok(Invocation::Print(format!("{USAGE}\n{HELP}"))),
            Some("--version") => return Ok(Invocation::Print(version())),
            Some(flags) if flags.starts_with('-') && flags.len() > 1 => {
                for flag in flags.chars().skip(1) {
                    match flag {
                        'f' => return Ok(Invocation::Rehearse),
                        'h' => return Ok(Invocation::Print(format!("{USAGE}\n{HELP}"))),
                        'V' => return Ok(Invocation::Print(version())),
                        's' => translated.push("--sloppy".into()),
                        'v' => translated.push("--verbose".into()),
                        // No /etc/mtab is written anyway.
                        'n' => {}
                        _ => return Err(format!("unknown option {flags}")),
                    }
                }
            }
            _ => places.push(argument),
        }
    }
    let [source, mountpoint] =
        <[OsString; 2]>::try_from(places).map_err(|_| "expected a source and a mount point")?;
    if Path::new(&source).is_absolute() {
        translated.extend(["--workdir".into(), source.clone()]);
    } else if !NO_SOURCE.iter().any(|none| source == *none) {
        translated.extend(["--workspace".into(), source.clone()]);
    }
    // What is in fstab is what the tables of mounts show. The options may say otherwise, as they come later.
    let mut shown = OsString::from("fsname=");
    shown.push(escape(&source));
    // They are defaults of mount(8), which does not pass them on; it does pass on `nosuid`, `nodev` and `noexec`. Of a
    // remount it passes on all options that are to hold, so that here, too, one that is not given is the default.
    let defaults = root.then(|| OsString::from("suid,dev,exec"));
    for option in std::iter::once(shown).chain(defaults).chain(options) {
        translated.extend(["-o".into(), option]);
    }
    translated.extend(["--".into(), mountpoint]);
    Ok(Invocation::Run(translated))
}

fn version() -> String {
    format!("mount.fuse.xpmfs {}\n", env!("CARGO_PKG_VERSION"))
}

/// How this process starts itself again: the arguments after the program's name, as `xpmfs` takes them.
#[must_use]
pub(super) fn own_arguments() -> Vec<OsString> {
    // They were understood once already.
    match arguments(std::env::args_os()) {
        Ok(Invocation::Run(arguments)) => arguments.into_iter().skip(1).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[&str]) -> Result<Invocation, String> {
        asked(given.iter().map(OsString::from), false)
    }

    fn expect(given: &[&str], translated: &[&str]) {
        let translated: Vec<OsString> = translated.iter().map(OsString::from).collect();
        assert_eq!(read(given), Ok(Invocation::Run(translated)));
    }

    #[test]
    fn mounts_arguments_become_ours() {
        expect(
            &[
                "/sbin/mount.fuse.xpmfs",
                "nlp",
                "/mnt/n,lp",
                "-sn",
                "-o",
                "rw,ro",
                "-t",
                "fuse.xpmfs",
            ],
            &[
                "xpmfs",
                "mount",
                "--sloppy",
                "--workspace",
                "nlp",
                "-o",
                "fsname=nlp",
                "-o",
                "rw,ro",
                "--",
                "/mnt/n,lp",
            ],
        );
        expect(
            &["mount.xpmfs", "/a,b", "/m", "-v"],
            &[
                "xpmfs",
                "mount",
                "--verbose",
                "--workdir",
                "/a,b",
                "-o",
                r"fsname=/a\,b",
                "--",
                "/m",
            ],
        );
        expect(
            &["mount.xpmfs", "none", "/m", "-o", "workspace=x"],
            &[
                "xpmfs",
                "mount",
                "-o",
                "fsname=none",
                "-o",
                "workspace=x",
                "--",
                "/m",
            ],
        );
    }

    #[test]
    fn root_gets_the_defaults_of_mount_unless_the_options_take_them_back() {
        let given = ["mount.xpmfs", "nlp", "/m", "-o", "nosuid"].map(OsString::from);
        let Ok(Invocation::Run(translated)) = asked(given, true) else {
            panic!("not understood");
        };
        let at = |option: &str| translated.iter().position(|given| given == option);
        assert!(at("suid,dev,exec").unwrap() < at("nosuid").unwrap());
    }

    #[test]
    fn a_rehearsal_does_nothing_and_nonsense_is_refused() {
        assert_eq!(
            read(&["mount.xpmfs", "nlp", "/m", "-f"]),
            Ok(Invocation::Rehearse)
        );
        for wrong in [
            &["nlp"][..],
            &["nlp", "/m", "/n"],
            &["nlp", "/m", "-x"],
            &["nlp", "/m", "-o"],
        ] {
            let given: Vec<&str> = std::iter::once("mount.fuse.xpmfs")
                .chain(wrong.iter().copied())
                .collect();
            assert!(read(&given).unwrap_err().contains("Usage"));
        }
    }

    #[test]
    fn help_and_version_are_printed_without_anything_else() {
        for (option, words) in [
            ("-h", "SOURCE is a workspace's id"),
            ("--help", "-o OPTIONS"),
            ("-V", env!("CARGO_PKG_VERSION")),
        ] {
            match read(&["mount.fuse.xpmfs", option]) {
                Ok(Invocation::Print(text)) => assert!(text.contains(words), "{text}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn under_its_own_name_the_program_takes_arguments_as_they_are() {
        expect(
            &["/usr/bin/xpmfs", "-f", "status"],
            &["/usr/bin/xpmfs", "-f", "status"],
        );
    }
}
