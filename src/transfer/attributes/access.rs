//! Restricts the mode of a copy that lacks its original's group or access control list.
//!
//! No user may do more with the copy than with the original. The new owner has read the original and may change the
//! copy: the owner's rights stay as they are. But the members of the copy's group were others of the original, and the
//! members of the original's group are others of the copy: both get only the rights that group and others had in
//! common.

/// The version of access control lists, as in the kernel's `posix_acl_xattr.h`. Entries of 8 bytes follow: the kind and
/// the rights, two bytes each, and an id. All of them are little-endian.
const VERSION: [u8; 4] = 2u32.to_le_bytes();
const ENTRY: usize = 8;

const GROUP: u16 = 0x04;
const OTHERS: u16 = 0x20;

/// The bits of a mode for the group (the mask, if the file has an access control list), and for others.
const GROUP_BITS: u32 = 0o070;
const OTHERS_BITS: u32 = 0o007;

/// The rights of the owning group and of other users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rights {
    group: u32,
    others: u32,
}

impl Rights {
    /// The rights by a mode and, if present, an access control list. The group bits of the mode are then only the
    /// list's mask.
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

/// The mode of a copy whose original has this mode, and this access control list, if any. `group`: the copy has the
/// original's group; `listed`: the list, as by [`list`], is set on the copy.
pub(super) fn mode(mode: u32, original: Option<&[u8]>, group: bool, listed: bool) -> u32 {
    let rights = Rights::of(mode, original);
    let rest = mode & !(GROUP_BITS | OTHERS_BITS);
    let (at_most, others) = match group {
        true => (rights.group, rights.others),
        false => (rights.common(), rights.common()),
    };
    match listed {
        // The group bits are the mask: the most that the list grants.
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

/// The rights in the entry of this kind, of which a list has at most one.
fn entry(list: &[u8], kind: u16) -> Option<u16> {
    let entries = list.strip_prefix(&VERSION)?;
    entries.chunks_exact(ENTRY).find_map(|entry| match entry {
        [t0, t1, r0, r1, ..] if u16::from_le_bytes([*t0, *t1]) == kind => {
            Some(u16::from_le_bytes([*r0, *r1]))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of the owner, one user, the group, the mask and others.
    fn listed(group: u8, mask: u8, others: u8) -> Vec<u8> {
        let entry = |kind: u8, rights: u8, id: u32| {
            let mut entry = vec![kind, 0, rights, 0];
            entry.extend(id.to_le_bytes());
            entry
        };
        let none = u32::MAX;
        let entries = [
            entry(0x01, 7, none),
            entry(0x02, 6, 1234),
            entry(0x04, group, none),
            entry(0x10, mask, none),
            entry(0x20, others, none),
        ];
        [VERSION.to_vec(), entries.concat()].concat()
    }

    #[test]
    fn what_a_list_gave_to_others_is_not_the_group_s_where_there_is_none() {
        let list = listed(0, 6, 0);
        assert_eq!(mode(0o760, Some(&list), true, false), 0o700);
        assert_eq!(mode(0o760, Some(&list), true, true), 0o760);
        let list = listed(7, 4, 4);
        assert_eq!(mode(0o744, Some(&list), true, false), 0o744);
    }

    #[test]
    fn another_group_gets_what_both_it_and_others_had() {
        let original = listed(6, 7, 4);
        assert_eq!(list(&original, 0o774), listed(4, 7, 4));
        assert_eq!(mode(0o774, Some(&original), false, true), 0o774);
        assert_eq!(mode(0o774, Some(&original), false, false), 0o744);
        assert_eq!(mode(0o4705, None, false, false), 0o4700);
    }

    #[test]
    fn an_invalid_list_is_unchanged() {
        for broken in [
            &b""[..],
            b"\x02",
            b"\x02\0\0\0\x04",
            b"\x03\0\0\0\x04\0\x07\0",
        ] {
            assert_eq!(list(broken, 0o770), broken);
            assert_eq!(mode(0o750, Some(broken), true, false), 0o750);
        }
    }
}
