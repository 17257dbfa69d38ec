//! Attaching through `fusermount3` (or `fusermount`), the set-user-id helper of libfuse.
//!
//! It mounts, and sends the open `/dev/fuse` over a socket whose number is in `_FUSE_COMMFD`
//! (libfuse's `mount.c`, `fuse_mount_fusermount`). We hand the socket over as its standard input, so
//! that it is inherited without any play between fork and exec.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::{AttachError, Attachment};

/// The helper's names, the newer first.
const NAMES: [&str; 2] = ["fusermount3", "fusermount"];
/// Where it is when it is not on `PATH`; the last is NixOS's place for set-user-id programs.
const PLACES: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];

/// The helper's path: the first in `PATH`, then in the usual places.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|place| place.is_absolute())
        .chain(PLACES.iter().map(PathBuf::from))
        .collect();
    NAMES.iter().find_map(|name| {
        places
            .iter()
            .map(|place| place.join(name))
            .find(|helper| helper.is_file())
    })
}

/// Mounts through the helper.
///
/// # Errors
///
/// What the helper said, as a sentence that says what to do.
pub(super) fn attach(attachment: &Attachment) -> Result<OwnedFd, AttachError> {
    let helper = find().ok_or(AttachError::NoHelper)?;
    let said = |error: io::Error| AttachError::Helper(format!("{}: {error}", helper.display()));
    let (ours, theirs) = UnixStream::pair().map_err(said)?;
    let mut child = Command::new(&helper)
        .arg("-o")
        .arg(options(attachment))
        .arg("--")
        .arg(&attachment.mountpoint)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(said)?;
    // The helper's end is closed here once it is spawned: end of file if it dies without a word.
    let received = receive(&ours);
    let mut written = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // Only explains an error; a failure to read it must not hide that error.
        let _ = stderr.take(16 * 1024).read_to_end(&mut written);
    }
    let status = child.wait().map_err(said)?;
    let words = on_one_line(&written);
    match received {
        Ok(Some(device)) if status.success() => {
            if !words.is_empty() {
                tracing::warn!("{words}");
            }
            Ok(device)
        }
        Err(error) if status.success() => Err(said(error)),
        _ => Err(explain(&helper, attachment, &words)),
    }
}

/// The helper's standard error as a part of one line of ours, where a newline would show as `\n`.
pub(super) fn on_one_line(written: &[u8]) -> String {
    let text = String::from_utf8_lossy(written);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("; ")
}

/// Takes the descriptor that the helper sends; `None` when it closes its end without.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

/// The `-o` of the helper. In `fsname=` a comma would end the option: escaped by a backslash.
fn options(attachment: &Attachment) -> OsString {
    let mut options = Vec::from(b"subtype=xpmfs,fsname=");
    options.extend(escape(&attachment.source));
    let mut add = |wanted: bool, option: &str| {
        if wanted {
            options.push(b',');
            options.extend(option.as_bytes());
        }
    };
    add(true, if attachment.read_only { "ro" } else { "rw" });
    // The helper's own defaults are nosuid and nodev, and it lets only root ask for the contrary.
    add(attachment.dev, "dev");
    add(attachment.suid, "suid");
    add(!attachment.exec, "noexec");
    add(!attachment.atime, "noatime");
    add(attachment.allow_other, "allow_other");
    add(attachment.default_permissions, "default_permissions");
    if let Some(max_read) = attachment.max_read {
        add(true, &format!("max_read={max_read}"));
    }
    OsString::from_vec(options)
}

/// As `get_string_opt` of libfuse's `fusermount.c` reads it: a backslash takes the next byte as it is.
fn escape(value: &OsStr) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(value.len());
    for byte in value.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}

/// Turns what the helper wrote on standard error into an error that says what to do.
fn explain(helper: &Path, attachment: &Attachment, words: &str) -> AttachError {
    let mountpoint = || attachment.mountpoint.clone();
    let has = |part: &str| words.contains(part);
    if has("user_allow_other") {
        AttachError::AllowOther
    } else if has("too many FUSE") {
        AttachError::TooMany
    } else if has("not owned by user") || has("no write access") {
        AttachError::NotYours(mountpoint())
    } else if has("Permission denied") {
        AttachError::Denied {
            mountpoint: mountpoint(),
            words: words.to_owned(),
        }
    } else if has("mounting over filesystem type") {
        AttachError::ForbiddenFileSystem(mountpoint())
    } else if has("not found") && has("device") {
        AttachError::NoDevice
    } else if has("Operation not permitted") {
        not_permitted(helper, words)
    } else if has("No such file or directory") {
        AttachError::Missing(mountpoint())
    } else if words.is_empty() {
        AttachError::Helper(format!("{} failed without a word", helper.display()))
    } else {
        AttachError::Helper(words.to_owned())
    }
}

/// Why the helper itself may not mount.
fn not_permitted(helper: &Path, words: &str) -> AttachError {
    let setuid_root = helper
        .metadata()
        .is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & 0o4000 != 0);
    if !setuid_root {
        return AttachError::HelperNotSetuid(helper.to_owned());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if status.lines().any(|line| line == "NoNewPrivs:\t1") {
        return AttachError::NoNewPrivileges;
    }
    AttachError::Helper(format!(
        "{words}; in a container, start it with `--device /dev/fuse --cap-add SYS_ADMIN`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_backslashes_of_the_source_are_escaped() {
        let mut attachment = Attachment::new("/m", "a,b\\c");
        attachment.allow_other = true;
        assert_eq!(
            options(&attachment),
            "subtype=xpmfs,fsname=a\\,b\\\\c,rw,allow_other"
        );
    }

    #[test]
    fn several_lines_of_the_helper_become_one() {
        assert_eq!(on_one_line(b"a: b\n\n  c: d \r\n"), "a: b; c: d");
        assert_eq!(on_one_line(b"\n"), "");
    }

    #[test]
    fn a_refusal_of_the_helper_offers_a_mount_without_it() {
        let attachment = Attachment::new("/m", "nlp");
        let sentence = |words: &str| explain(Path::new("/nowhere"), &attachment, words).to_string();
        for words in [
            "fusermount3: mountpoint /m not owned by user",
            "fusermount3: mount failed: Permission denied",
            "fusermount3: mounting over filesystem type 0x1 is forbidden",
            "fusermount3: mount failed: Operation not permitted",
            "fusermount3: could not determine username",
        ] {
            let sentence = sentence(words);
            assert!(sentence.contains("`xpmfs run -- COMMAND`"), "{sentence}");
        }
        for error in [AttachError::NoHelper, AttachError::NoNewPrivileges] {
            let sentence = error.to_string();
            assert!(sentence.contains("`xpmfs run -- COMMAND`"), "{sentence}");
        }
    }

    #[test]
    fn what_the_helper_says_becomes_a_sentence_that_says_what_to_do() {
        let attachment = Attachment::new("/m", "nlp");
        let sentence = |words: &str| explain(Path::new("/nowhere"), &attachment, words).to_string();
        for (words, advice) in [
            (
                "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf",
                "/etc/fuse.conf",
            ),
            (
                "fusermount3: too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf",
                "mount_max",
            ),
            ("fusermount3: mountpoint /m not owned by user", "elsewhere"),
            (
                "fusermount3: user has no write access to mountpoint /m",
                "elsewhere",
            ),
            (
                "fusermount3: mount failed: Permission denied",
                "(fusermount3: mount failed: Permission denied)",
            ),
            (
                "fusermount3: mount failed: Permission denied",
                "/etc/apparmor.d/local/fusermount3",
            ),
            (
                "fusermount3: mounting over filesystem type 0x1 is forbidden",
                "elsewhere",
            ),
            (
                "fusermount3: fuse device not found, try 'modprobe fuse' first",
                "modprobe fuse",
            ),
            (
                "fusermount3: mount failed: Operation not permitted",
                "chmod u+s /nowhere",
            ),
            ("fusermount3: mount failed: Out of cheese", "Out of cheese"),
        ] {
            assert!(
                sentence(words).contains(advice),
                "{words}: {}",
                sentence(words)
            );
        }
    }
}
