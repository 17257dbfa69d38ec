//! Stores one component of a path in little memory.

use std::ffi::OsStr;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// The longest name that is stored inline; most are shorter.
const INLINE_MAX: usize = 22;

/// One component of a path, owned and cheap to clone.
#[derive(Clone)]
pub struct Name(Bytes);

#[derive(Clone)]
enum Bytes {
    Inline { length: u8, bytes: [u8; INLINE_MAX] },
    Shared(Arc<[u8]>),
}

impl From<&OsStr> for Name {
    fn from(name: &OsStr) -> Name {
        let name = name.as_bytes();
        let mut bytes = [0; INLINE_MAX];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(inline), Ok(length)) => {
                inline.copy_from_slice(name);
                Name(Bytes::Inline { length, bytes })
            }
            _ => Name(Bytes::Shared(Arc::from(name))),
        }
    }
}

impl Deref for Name {
    type Target = OsStr;

    fn deref(&self) -> &OsStr {
        OsStr::from_bytes(match &self.0 {
            Bytes::Inline { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or(bytes),
            Bytes::Shared(bytes) => bytes,
        })
    }
}

impl AsRef<std::path::Path> for Name {
    fn as_ref(&self) -> &std::path::Path {
        (**self).as_ref()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_are_preserved() {
        for length in [
            0,
            1,
            INLINE_MAX - 1,
            INLINE_MAX,
            INLINE_MAX + 1,
            64,
            255,
            300,
        ] {
            let name = OsStr::from_bytes(&vec![0xe9; length]).to_owned();
            let kept = Name::from(&*name);
            assert_eq!(*kept, *name);
            assert_eq!(kept, kept.clone());
        }
        assert_ne!(Name::from(OsStr::new("a")), Name::from(OsStr::new("a\0")));
        assert_eq!(size_of::<Name>(), 24);
    }
}
