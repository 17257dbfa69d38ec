//! The options of `-o`, as mount(8) has them: reading them; [`known`] says which there are.

pub mod known;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::daemon::mounts::MountInfo;
use crate::settings::{Environment, Folder, expand_user};

/// What `-o` asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestedOptions {
    /// `ro`, unless a later `rw` takes it back.
    pub read_only: bool,
    /// `dev`
    pub dev: bool,
    /// `suid`
    pub suid: bool,
    /// `noexec`
    pub noexec: bool,
    /// `noatime`
    pub noatime: bool,
    /// `allow_other`
    pub allow_other: bool,
    /// `default_permissions`
    pub default_permissions: bool,
    /// `fsname=`: what tables of mounts show as the source.
    pub source: Option<OsString>,
    /// `workspace=`: an id of the settings.
    pub workspace: Option<String>,
    /// `settings=`: the settings file.
    pub settings: Option<PathBuf>,
    /// `folder=MODE:PATH`, any number of times.
    pub folders: Vec<Folder>,
    /// `log=`: the log file.
    pub log: Option<PathBuf>,
    /// `no_archive`
    pub no_archive: bool,
}

/// Why options are not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No such option.
    #[error("unknown mount option `{option}`: {}", known::meant(.option))]
    Unknown {
        /// What was given.
        option: String,
    },
    /// An option of other programs that xpmfs does not support.
    #[error("there is no mount option `{option}` here: {advice}")]
    Unsupported {
        /// What was given.
        option: String,
        /// What to do.
        advice: &'static str,
    },
    /// Its value is missing or wrong.
    #[error("the mount option `{option}` has a wrong value: {why}")]
    Value {
        /// What was given.
        option: String,
        /// What is wrong.
        why: String,
    },
}

impl RequestedOptions {
    /// Reads one `-o`: options with commas between them; a backslash takes the next byte as it is. Later options
    /// override earlier ones.
    ///
    /// # Errors
    ///
    /// The first option that is not understood.
    pub fn add(&mut self, text: &OsStr) -> Result<(), OptionError> {
        split(text)
            .iter()
            .filter(|option| !option.is_empty())
            .try_for_each(|option| self.set(option))
    }

    /// The options that a live mount has, as far as a remount may name them.
    #[must_use]
    pub fn of(mount: &MountInfo) -> Self {
        Self {
            read_only: mount.is_read_only(),
            dev: !mount.has_option("nodev"),
            suid: !mount.has_option("nosuid"),
            noexec: mount.has_option("noexec"),
            noatime: mount.has_option("noatime"),
            allow_other: mount.has_option("allow_other"),
            default_permissions: mount.has_option("default_permissions"),
            ..Self::default()
        }
    }

    /// Reads one `-o` of a remount, over what `mount` has. mount(8) merges in all that the table of mounts shows, also
    /// what only the kernel understands (`user_id=0`): that is accepted as long as it is the same.
    ///
    /// # Errors
    ///
    /// As [`RequestedOptions::add`].
    pub fn add_to(&mut self, mount: &MountInfo, text: &OsStr) -> Result<(), OptionError> {
        for option in split(text).iter().filter(|option| !option.is_empty()) {
            match self.set(option) {
                Err(OptionError::Unsupported { .. })
                    if std::str::from_utf8(option).is_ok_and(|option| mount.has_option(option)) => {
                }
                set => set?,
            }
        }
        Ok(())
    }

    /// Reads one `-o` and leaves out what we do not have (mount(8)'s `-s`). Gives what was left out.
    ///
    /// # Errors
    ///
    /// An option of ours with a wrong value.
    pub fn add_sloppily(&mut self, text: &OsStr) -> Result<Vec<String>, OptionError> {
        let mut left_out = Vec::new();
        for option in split(text).iter().filter(|option| !option.is_empty()) {
            match self.set(option) {
                Err(OptionError::Unknown { option } | OptionError::Unsupported { option, .. }) => {
                    left_out.push(option);
                }
                set => set?,
            }
        }
        Ok(left_out)
    }

    fn set(&mut self, option: &[u8]) -> Result<(), OptionError> {
        let (name, value) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, value) = option.split_at(at);
                (name, value.get(1..).filter(|value| !value.is_empty()))
            }
            None => (option, None),
        };
        let shown = String::from_utf8_lossy(name).into_owned();
        match shown.as_str() {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "exec" => self.noexec = false,
            "noexec" => self.noexec = true,
            "atime" => self.noatime = false,
            "noatime" => self.noatime = true,
            "allow_other" => self.allow_other = true,
            "default_permissions" => self.default_permissions = true,
            "no_archive" => self.no_archive = true,
            "subtype" if value.is_some_and(|value| value != b"xpmfs") => {
                return Err(OptionError::Value {
                    option: shown,
                    why: "the type is always fuse.xpmfs".into(),
                });
            }
            // Looked for beforehand, by `asks_to_remount`.
            "subtype" | "remount" => {}
            "fsname" | "workspace" | "settings" | "folder" | "log" => {
                self.set_value(&shown, value)?;
            }
            name if known::is_ignored(name) => {}
            name => {
                return Err(match known::advice(name) {
                    Some(advice) => OptionError::Unsupported {
                        option: shown,
                        advice,
                    },
                    None => OptionError::Unknown { option: shown },
                });
            }
        }
        Ok(())
    }

    fn set_value(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), OptionError> {
        let wrong = |why: String| OptionError::Value {
            option: name.to_owned(),
            why,
        };
        let value = value.ok_or_else(|| wrong(format!("write {name}=VALUE")))?;
        let value = OsString::from_vec(value.to_vec());
        let text = value.to_string_lossy().into_owned();
        match name {
            "fsname" => self.source = Some(value),
            "workspace" => self.workspace = Some(text),
            "settings" => self.settings = Some(expanded(value).map_err(wrong)?),
            "log" => self.log = Some(expanded(value).map_err(wrong)?),
            _ => self.folders.push(folder(&value).map_err(wrong)?),
        }
        Ok(())
    }
}

/// A path with its `~` replaced: no shell does that behind `-o`.
fn expanded(path: OsString) -> Result<PathBuf, String> {
    expand_user(Path::new(&path), &Environment::of_process()).map_err(|error| error.to_string())
}

/// Reads `MODE:PATH`; the path may be any bytes.
///
/// # Errors
///
/// What is wrong, as a sentence.
pub fn folder(text: &OsStr) -> Result<Folder, String> {
    if let Some(text) = text.to_str() {
        return text.parse();
    }
    let bytes = text.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b':').unwrap_or(0);
    let (mode, path) = bytes.split_at(at);
    // Reading it with a path of no meaning finds what is wrong with the rest.
    let shape: Folder = format!("{}:/", String::from_utf8_lossy(mode)).parse()?;
    let path = OsStr::from_bytes(path.get(1..).unwrap_or_default());
    Ok(Folder::new(shape.mode, path))
}

/// Whether one `-o` asks for a live mount to change (`remount`).
#[must_use]
pub fn asks_to_remount(text: &OsStr) -> bool {
    split(text).iter().any(|option| option == b"remount")
}

/// The options of one `-o`, without the backslashes.
fn split(text: &OsStr) -> Vec<Vec<u8>> {
    let mut options = vec![Vec::new()];
    let mut bytes = text.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b',' => options.push(Vec::new()),
            _ => {
                let taken = if byte == b'\\' {
                    bytes.next().copied().unwrap_or(byte)
                } else {
                    byte
                };
                if let Some(option) = options.last_mut() {
                    option.push(taken);
                }
            }
        }
    }
    options
}

/// Makes `value` one that [`RequestedOptions::add`] gives back whole.
#[must_use]
pub fn escape(value: &OsStr) -> OsString {
    let mut escaped = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    OsString::from_vec(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Mode;

    fn read(text: &str) -> Result<RequestedOptions, OptionError> {
        let mut options = RequestedOptions::default();
        options.add(OsStr::new(text)).map(|()| options)
    }

    #[test]
    fn the_usual_options_are_read_and_the_last_one_counts() {
        let options =
            read("ro,rw,noexec,suid,nosuid,dev,noatime,allow_other,nofail,x-systemd.automount,,comment=hi").unwrap();
        assert_eq!(
            options,
            RequestedOptions {
                noexec: true,
                dev: true,
                noatime: true,
                allow_other: true,
                ..RequestedOptions::default()
            }
        );
    }

    #[test]
    fn our_own_options_take_values_with_commas() {
        let options =
            read(r"workspace=nlp,settings=/a\,b.yaml,folder=use:/x\,y,folder=backup:/z,log=/l,no_archive,fsname=n\\p").unwrap();
        assert_eq!(options.workspace.as_deref(), Some("nlp"));
        assert_eq!(options.settings, Some("/a,b.yaml".into()));
        assert_eq!(
            options.folders,
            [
                Folder::new(Mode::Use, "/x,y"),
                Folder::new(Mode::Backup, "/z")
            ]
        );
        assert_eq!(options.source, Some("n\\p".into()));
        assert!(options.no_archive);
        assert_eq!(escape(OsStr::new("a,b\\c")), r"a\,b\\c");
    }

    #[test]
    fn what_is_not_understood_is_said_with_what_to_write_instead() {
        for (text, advice) in [
            ("alow_other", "did you mean `allow_other`?"),
            ("noexce", "did you mean `noexec`?"),
            ("allow_root", "use `allow_other`"),
            ("foo", "the options are ro, rw, allow_other"),
            ("nonempty", "an empty directory"),
            ("auto_unmount", "xpmfs umount"),
            ("uid=5", "there is no mount option `uid` here: leave it out"),
            ("umask=022", "`allow_other`"),
            ("sync", "fsync"),
            ("max_read=4096", "for itself"),
            ("subtype=other", "fuse.xpmfs"),
            ("workspace", "workspace=VALUE"),
            ("folder=keep:/x", "use"),
            ("folder=/x", "MODE:PATH"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(advice), "{text}: {error}");
        }
        assert_eq!(
            RequestedOptions::default().add_sloppily(OsStr::new("zorp,ro,nonempty")),
            Ok(vec!["zorp".into(), "nonempty".into()])
        );
    }

    #[test]
    fn what_fstab_carries_along_means_nothing() {
        let carried = "defaults,_netdev,noauto,nofail,user,user=me,users,owner,group,relatime,nodiratime,strictatime,lazytime,async,\
                       x-systemd.automount,x-systemd.requires=a.mount,X-mount.mkdir,x-gvfs-hide,comment=hi,subtype=xpmfs";
        assert_eq!(read(carried), Ok(RequestedOptions::default()));
        for option in known::OURS {
            let written = option.replace("MODE:PATH", "use:/x");
            assert!(read(&written).is_ok(), "{written}");
        }
    }

    #[test]
    fn a_tilde_is_the_home_directory() {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let options = read("settings=~/s,log=~/l,folder=use:~/f").unwrap();
        assert_eq!(options.settings, home.as_ref().map(|home| home.join("s")));
        assert_eq!(options.log, home.as_ref().map(|home| home.join("l")));
        assert_eq!(
            Some(&options.folders[0].path),
            home.map(|home| home.join("f")).as_ref()
        );
    }

    #[test]
    fn a_folder_that_is_not_text_keeps_its_bytes() {
        let path = OsStr::from_bytes(b"/a\xff");
        let text = OsStr::from_bytes(b"move:/a\xff");
        assert_eq!(folder(text), Ok(Folder::new(Mode::Move, path)));
        assert!(folder(OsStr::from_bytes(b"keep:/a\xff")).is_err());
    }
}
