//! (stand-in until merged)
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
/// stand-in
pub fn job_name(task: &OsStr) -> &[u8] {
    task.as_bytes().rsplit(|b| *b == b'.').next().unwrap_or(b"")
}
/// stand-in
pub fn done_marker(task: &OsStr) -> OsString {
    let mut name = job_name(task).to_vec();
    name.extend_from_slice(b".done");
    OsString::from_vec(name)
}
/// stand-in
pub fn is_internal(name: &[u8], job_name: &[u8], is_dir: bool, size: u64) -> bool {
    if is_dir {
        return name == b".scheduler";
    }
    name == b".lock"
        || name.ends_with(b".pid")
        || name
            .strip_suffix(b".lock")
            .is_some_and(|stem| stem == job_name || size == 0)
}
/// stand-in
pub fn counts_in_folder(name: &OsStr) -> bool {
    !name.as_bytes().starts_with(b".")
}
