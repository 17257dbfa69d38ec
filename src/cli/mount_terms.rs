//! What two mounts of a workspace must have in common to be the same to a program.

use crate::daemon::attach::Attachment;
use crate::daemon::sharing::terms::Terms;
use crate::settings::{Folder, Tuning};

/// The terms of a mount, without those that need a look at the disk.
pub(super) fn terms(
    folders: &[Folder],
    attachment: &Attachment,
    archives: bool,
    tuning: &Tuning,
) -> Terms {
    let mut terms = Terms::default();
    let mut list = Vec::new();
    for folder in folders {
        let mut text = format!("{}:{}", folder.mode, folder.path.display());
        if !folder.exclude.written().is_empty() {
            text += &format!(" without {:?}", folder.exclude);
        }
        list.push(text);
    }
    terms.add("the list of folders", format!("[{}]", list.join(", ")));
    for (name, value) in [
        ("read-only", attachment.read_only),
        ("allow_other", attachment.allow_other),
        ("default_permissions", attachment.default_permissions),
        ("dev", attachment.dev),
        ("suid", attachment.suid),
        ("exec", attachment.exec),
        ("atime", attachment.atime),
        ("archiving", archives),
    ] {
        terms.add(name, value);
    }
    terms.add("settle", format!("{:?}", tuning.settle()));
    terms.add("scan_interval", format!("{:?}", tuning.scan_interval()));
    terms.add("exclude", format!("{:?}", tuning.exclude));
    terms.add("release", format!("{:?}", tuning.release));
    terms.add("bandwidth", format!("{:?}", tuning.bandwidth));
    terms.add("recover_on", format!("{:?}", tuning.recover_on()));
    terms.add("folder_timeout", format!("{:?}", tuning.folder_timeout()));
    terms.add("trash", format!("{:?}", tuning.trash()));
    terms
}
