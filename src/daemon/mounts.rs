//! The mounts of this mount namespace, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! Reading that file walks no mount, so it is safe also where one hangs.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags};

/// The file system type that our mounts have.
pub const FS_TYPE: &str = "fuse.xpmfs";

/// A device number, as the kernel writes it in `mountinfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Device {
    /// Major number: 0 for every FUSE mount.
    pub major: u32,
    /// Minor number: no two live mounts of one machine share it.
    pub minor: u32,
}

impl Device {
    /// The device number that `stat` gives as one integer (`st_dev`).
    #[must_use]
    pub fn from_stat(dev: u64) -> Self {
        Self {
            major: rustix::fs::major(dev),
            minor: rustix::fs::minor(dev),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One line of `mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// The mount's id.
    pub id: u64,
    /// The id of the mount that it is on.
    pub parent: u64,
    /// The file system's device number.
    pub device: Device,
    /// Which directory of the file system it shows: `/`, unless it is a bind mount of a part.
    pub root: PathBuf,
    /// Where it is, seen from this process's root; the bytes as they are, UTF-8 or not.
    pub mountpoint: PathBuf,
    /// The mount's own options: `rw`, `nosuid`, …
    pub options: String,
    /// The file system's type, `fuse.xpmfs` for ours.
    pub fs_type: String,
    /// What it was mounted from.
    pub source: OsString,
    /// The file system's options: `rw`, `user_id=1000`, …
    pub super_options: String,
}

impl MountInfo {
    /// Whether it is one of ours.
    #[must_use]
    pub fn is_xpmfs(&self) -> bool {
        self.fs_type == FS_TYPE
    }

    /// Whether it is read-only: the mount, or the whole file system.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.has_option("ro")
    }

    /// Whether an option is written in the table, of the mount or of the file system.
    #[must_use]
    pub fn has_option(&self, wanted: &str) -> bool {
        [&self.options, &self.super_options]
            .iter()
            .any(|options| options.split(',').any(|option| option == wanted))
    }

    /// The user whose daemon serves it (`user_id=`), for FUSE mounts.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        self.super_options
            .split(',')
            .find_map(|option| option.strip_prefix("user_id="))
            .and_then(|uid| uid.parse().ok())
    }

    /// The group in which its owner mounted it (`group_id=`), for FUSE mounts.
    #[must_use]
    pub fn group(&self) -> Option<u32> {
        self.super_options
            .split(',')
            .find_map(|option| option.strip_prefix("group_id="))
            .and_then(|gid| gid.parse().ok())
    }

    /// That group, if the kernel keeps this process out of its own user's mount because its group is another: without `allow_other`,
    /// FUSE compares all user and group numbers of the caller with those of the mount.
    #[must_use]
    pub fn shut_to_group(&self) -> Option<u32> {
        let shared = self
            .super_options
            .split(',')
            .any(|option| option == "allow_other");
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        let own = self.owner() == Some(user.as_raw());
        let other = self.group().filter(|mounted| *mounted != group.as_raw());
        other.filter(|_| own && !shared && !user.is_root())
    }

    /// The name of that user, or the number if it has none, if it is neither this process's nor unknown.
    #[must_use]
    pub fn other_owner(&self) -> Option<String> {
        let owner = self.owner()?;
        if owner == rustix::process::geteuid().as_raw() {
            return None;
        }
        Some(user_name(owner))
    }
}

/// A user's name, or the number if it has none.
#[must_use]
pub fn user_name(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// A group's name, or the number if it has none.
#[must_use]
pub fn group_name(gid: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

/// All mounts of this mount namespace, in the kernel's order.
///
/// # Errors
///
/// `/proc/self/mountinfo` cannot be read.
pub fn all() -> io::Result<Vec<MountInfo>> {
    let bytes = fs::read("/proc/self/mountinfo").map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot read /proc/self/mountinfo: {error}; is /proc mounted?"),
        )
    })?;
    Ok(parse(&bytes))
}

/// Our mounts in this mount namespace.
///
/// # Errors
///
/// As [`all`].
pub fn xpmfs() -> io::Result<Vec<MountInfo>> {
    Ok(all()?.into_iter().filter(MountInfo::is_xpmfs).collect())
}

/// The top-most mount at exactly `mountpoint` (absolute, without symlinks), of whatever type.
///
/// # Errors
///
/// As [`all`].
pub fn top_at(mountpoint: &Path) -> io::Result<Option<MountInfo>> {
    Ok(top_of(all()?, mountpoint))
}

/// The top-most of `mounts` at `mountpoint`: the one on which no other one of the same place lies.
fn top_of(mounts: Vec<MountInfo>, mountpoint: &Path) -> Option<MountInfo> {
    let here: Vec<MountInfo> = mounts
        .into_iter()
        .filter(|mount| mount.mountpoint == mountpoint)
        .collect();
    let covered: HashSet<u64> = here.iter().map(|mount| mount.parent).collect();
    let mut top = here
        .into_iter()
        .filter(|mount| !covered.contains(&mount.id) || mount.id == mount.parent);
    top.next_back()
}

/// Which mount is the top-most at a place. The ids in `mountinfo` and the numbers of devices are given to the next mount at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UniqueId(Option<u64>);

impl UniqueId {
    /// Of the top-most mount at `mountpoint`. Asks the kernel alone and no file system. Unknown before Linux 6.8.
    #[must_use]
    pub fn of(mountpoint: &Path) -> UniqueId {
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statx(CWD, mountpoint, flags, MNT_ID_UNIQUE);
        let known = |stat: &Statx| stat.stx_mask & MNT_ID_UNIQUE.bits() != 0;
        UniqueId(stat.ok().filter(known).map(|stat| stat.stx_mnt_id))
    }

    /// Whether another mount, or none, is at the place now.
    #[must_use]
    pub fn is_gone_from(self, mountpoint: &Path) -> bool {
        let now = UniqueId::of(mountpoint);
        self.0.is_some() && now.0.is_some() && self != now
    }
}

/// `STATX_MNT_ID_UNIQUE` (statx(2)), since Linux 6.8.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The mounts that lie directly on the mount `id`.
///
/// # Errors
///
/// As [`all`].
pub fn on_top_of(id: u64) -> io::Result<Vec<MountInfo>> {
    Ok(all()?
        .into_iter()
        .filter(|mount| mount.parent == id && mount.id != id)
        .collect())
}

/// Reads `mountinfo`; a line that is not understood is left out.
fn parse(mountinfo: &[u8]) -> Vec<MountInfo> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = parse_device(fields.next()?)?;
    let root = PathBuf::from(unescape(fields.next()?));
    let mountpoint = PathBuf::from(unescape(fields.next()?));
    let options = text(fields.next()?);
    // Any number of optional fields, up to a hyphen on its own.
    fields.by_ref().find(|field| *field == b"-")?;
    Some(MountInfo {
        id,
        parent,
        device,
        root,
        mountpoint,
        options,
        fs_type: unescape(fields.next()?).to_string_lossy().into_owned(),
        source: unescape(fields.next()?),
        super_options: text(fields.next().unwrap_or_default()),
    })
}

fn parse_device(field: &[u8]) -> Option<Device> {
    let field = std::str::from_utf8(field).ok()?;
    let (major, minor) = field.split_once(':')?;
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// Undoes the kernel's octal escapes (`\040` for a space; also tab, newline, backslash, `#`).
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, octal(tail)) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// The byte that three octal digits at the start of `digits` stand for.
fn octal(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn lines_with_any_number_of_optional_fields_are_read() {
        let text = b"22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
            36 22 0:52 / /mnt/nlp ro,nosuid shared:9 master:1 propagate_from:2 - fuse.xpmfs nlp rw,user_id=1000,group_id=100\n\
            nonsense\n\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        let ours = &mounts[1];
        assert!(ours.is_xpmfs() && ours.is_read_only() && !mounts[0].is_xpmfs());
        assert!(!mounts[0].is_read_only());
        assert_eq!(ours.device.to_string(), "0:52");
        assert_eq!((ours.id, ours.parent), (36, 22));
        assert_eq!(ours.owner(), Some(1000));
        assert_eq!(ours.source, "nlp");
    }

    #[test]
    fn escapes_and_bytes_that_are_not_text_are_decoded() {
        let line =
            b"36 22 0:52 / /a\\040b\\011c\\012d\\134e\\043,\xff\\9 rw - fuse.xpmfs a\\040b rw";
        let mount = &parse(line)[0];
        assert_eq!(
            mount.mountpoint.as_os_str().as_bytes(),
            b"/a b\tc\nd\\e#,\xff\\9"
        );
        assert_eq!(mount.source, "a b");
    }

    #[test]
    fn the_top_most_of_stacked_mounts_is_found_in_any_order() {
        let lower = "36 22 0:52 / /m rw - fuse.xpmfs lower rw\n";
        let upper = "30 36 0:53 / /m rw - fuse.xpmfs upper rw\n";
        let other = "37 30 0:54 / /m/x rw - tmpfs other rw\n";
        for text in [
            format!("{lower}{upper}{other}"),
            format!("{other}{upper}{lower}"),
        ] {
            let top = top_of(parse(text.as_bytes()), Path::new("/m"));
            assert_eq!(top.map(|mount| mount.source), Some("upper".into()));
        }
    }

    #[test]
    fn this_process_has_mounts() {
        assert!(
            all()
                .expect("mountinfo")
                .iter()
                .any(|m| m.fs_type == "proc")
        );
    }
}
