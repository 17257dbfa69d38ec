//! Which changes in the view are permitted, given the serving location.
//!
//! Archives are immutable. A change in the primary goes ahead; internal files of a job that a folder
//! serves live in the primary; a removal is refused, so that `rm -rf` in the view can neither
//! destroy an archive nor copy one back; anything else needs the job back in the primary first.

use rustix::io::Errno;

use super::PRIMARY;

/// A requested change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Anything that alters a file or directory, its attributes, or adds to a directory: write,
    /// create, truncate, chmod, utimes, setxattr, link, rename inside it.
    Alter,
    /// The removal of a name: unlink, rmdir, the source of a rename out of the job, or of the job itself.
    Remove,
}

/// What is done for a requested change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes ahead in the primary.
    Go,
    /// It goes ahead on the internal file that the primary keeps for the job.
    Internal,
    /// The job must be recovered first.
    Recover,
    /// It is refused with this error.
    Refuse(Errno),
}

/// Judges a change of an entry that `location` serves; `internal`: the entry is an internal file of a job.
pub fn judge(location: u8, internal: bool, change: Change) -> Verdict {
    if location == PRIMARY {
        return Verdict::Go;
    }
    match (internal, change) {
        (true, _) => Verdict::Internal,
        (false, Change::Remove) => Verdict::Refuse(Errno::ROFS),
        (false, Change::Alter) => Verdict::Recover,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primary_is_changed_in_place() {
        for change in [Change::Alter, Change::Remove] {
            for internal in [false, true] {
                assert_eq!(judge(PRIMARY, internal, change), Verdict::Go);
            }
        }
    }

    #[test]
    fn an_archive_is_never_changed() {
        assert_eq!(judge(1, false, Change::Alter), Verdict::Recover);
        assert_eq!(
            judge(1, false, Change::Remove),
            Verdict::Refuse(Errno::ROFS)
        );
        assert_eq!(judge(1, true, Change::Alter), Verdict::Internal);
        assert_eq!(judge(1, true, Change::Remove), Verdict::Internal);
    }
}
