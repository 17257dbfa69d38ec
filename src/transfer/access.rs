//! Who may do what with a copy that cannot have all of its original's owner, group and access control list: nobody more than before.
//!
//! Who becomes the owner in somebody's place has read the original, and may change what is his own: the owner's rights stay as they are. But
//! the members of another group have been others so far, and those of the original's are others from now on: neither gets more than
//! both had.

/// The version of access control lists, as in the kernel's `posix_acl_xattr.h`; entries follow of 8 bytes: what it is about and rights, two
/// bytes each, and an id. All of them are little-endian.
const VERSION: [u8; 4] = 2u32.to_le_bytes();
const ENTRY: usize = 8;

const GROUP: u16 = 0x04;
const OTHERS: u16 = 0x20;

/// The bits of a mode that are the group's, or those of all that an access control list names, and the others'.
const GROUP_BITS: u32 = 0o070;
const OTHERS_BITS: u32 = 0o007;

/// The rights of the owning group and of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rights {
    group: u32,
    others: u32,
}

impl Rights {
    /// What a mode says, and an access control list where there is one: the mode tells only of the most that it gives.
    fn of(mode: u32, list: Option<&[u8]>) -> Rights {
        let others = mode & OTHERS_BITS;
        let mask = (mode & GROUP_BITS) >> 3;
        let entry = list.and_then(|list| entry(list, GROUP));
        let group = entry.map_or(mask, |group| u32::from(group) & mask);
        Rights { group, others }
    }

    fn common(self) -> u32 {
        self.group & self.others
    }
}

/// The mode of a copy whose original had this mode, and this access control list, if any. `group`: whether it has the original's group;
/// `listed`: whether the list, as by [`list`], is set on it.
pub(super) fn mode(mode: u32, original: Option<&[u8]>, group: bool, listed: bool) -> u32 {
    let rights = Rights::of(mode, original);
    let rest = mode & !(GROUP_BITS | OTHERS_BITS);
    let (at_most, others) = match group {
        true => (rights.group, rights.others),
        false => (rights.common(), rights.common()),
    };
    match listed {
        // The bits of the group are the most that the list gives to anybody.
        true => rest | (mode & GROUP_BITS) | others,
        false => rest | at_most << 3 | others,
    }
}

/// The access control list of a copy that does not have the original's group.
pub(super) fn list(original: &[u8], mode: u32) -> Vec<u8> {
    let common = Rights::of(mode, Some(original)).common();
    let common = u16::try_from(common).unwrap_or(0).to_le_bytes();
    let mut list = original.to_vec();
    let (_, entries) = list.split_at_mut(VERSION.len().min(original.len()));
    for entry in entries.chunks_exact_mut(ENTRY) {
        if let [t0, t1, r0, r1, ..] = entry
            && [GROUP, OTHERS].contains(&u16::from_le_bytes([*t0, *t1]))
        {
            [*r0, *r1] = common;
        }
    }
    list
}

/// The rights that an access control list gives by its entry of a kind that there is one of.
fn entry(list: &[u8], kind: u16) -> Option<u16> {
    let entries = list.strip_prefix(&VERSION)?;
    entries.chunks_exact(ENTRY).find_map(|entry| match entry {
        [t0, t1, r0, r1, ..] if u16::from_le_bytes([*t0, *t1]) == kind => {
            Some(u16::from_le_bytes([*r0, *r1]))
        }
        _ => None,
    })
}
