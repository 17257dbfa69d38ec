//! System calls without a safe wrapper elsewhere.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// The extent of a [`write_out`].
#[derive(Debug, Clone, Copy)]
pub enum Writeout {
    /// Starts writing, and returns at once.
    Start,
    /// Returns when all is written. Unlike `fsync`, this does not write the metadata.
    Wait,
}

/// Writes a part of a file's cached pages to the disk. A file system that cannot do so, or a sandbox that forbids it,
/// is not an error: the call is only advice.
///
/// # Errors
///
/// `EIO`, `ENOSPC`: errors of writing since the last call with the same open file.
pub fn write_out(fd: impl AsFd, offset: u64, length: u64, how: Writeout) -> Result<()> {
    let flags = match how {
        Writeout::Start => libc::SYNC_FILE_RANGE_WRITE,
        Writeout::Wait => {
            libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER
        }
    };
    let offset = i64::try_from(offset).map_err(|_| Errno::INVAL)?;
    let length = i64::try_from(length).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is open during the call, which uses no memory of this process.
    let done = unsafe { libc::sync_file_range(fd.as_fd().as_raw_fd(), offset, length, flags) };
    match succeeded(done.into()) {
        Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM | Errno::SPIPE) => Ok(()),
        result => result,
    }
}

/// `F_SETSIG` of Linux (fcntl(2)).
const SETSIG: libc::c_int = 10;

/// Whether a process has a file open for writing, as far as the kernel knows: it grants a lease for reading only if
/// none has. The file must be open for reading only.
pub fn has_writers(fd: impl AsFd) -> bool {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open during these calls, which take only numbers.
    let control = |command, number: libc::c_int| unsafe { libc::fcntl(fd, command, number) };
    // A lease that is broken before it is released sends a signal. The default, SIGIO, would end the process; SIGURG is
    // ignored by default.
    if control(SETSIG, libc::SIGURG) != 0 {
        return false;
    }
    if control(libc::F_SETLEASE, libc::F_RDLCK) == 0 {
        control(libc::F_SETLEASE, libc::F_UNLCK);
        return false;
    }
    last_errno() == Errno::AGAIN
}

/// `IOPRIO_WHO_PROCESS`, and the lowest priority of the class best-effort (`ioprio_set(2)`).
const WHO_PROCESS: libc::c_int = 1;
const LOWEST: libc::c_int = (2 << 13) | 7;

/// Sets the disk priority of the calling thread to the lowest that still guarantees progress.
///
/// # Errors
///
/// `ENOSYS` where the kernel has no priorities.
pub fn lowest_io_priority() -> Result<()> {
    // SAFETY: the call takes three numbers, and changes nothing but the scheduling of the calling thread.
    succeeded(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, LOWEST) })
}

/// `cachestat` (Linux 6.5) has this number on every architecture that Rust supports.
const CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// The result of `cachestat`, in pages.
#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    written: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// The number of bytes of a part of a file that are cached.
///
/// # Errors
///
/// `ENOSYS` before Linux 6.5; `EPERM` for a file that the caller neither owns nor may write.
pub fn cached(fd: impl AsFd, offset: u64, length: u64) -> Result<u64> {
    let range = Range { offset, length };
    let mut stat = CacheStat::default();
    let (from, to) = (&raw const range, &raw mut stat);
    // SAFETY: both structures have the layout that the call expects, and live until it returns.
    succeeded(unsafe { libc::syscall(CACHESTAT, fd.as_fd().as_raw_fd(), from, to, 0) })?;
    Ok(stat
        .cached
        .saturating_mul(rustix::param::page_size() as u64))
}

/// Closes a duplicate of a descriptor, and returns the error of `close`: network file systems write back in it, and
/// report a full disk only there.
///
/// # Errors
///
/// As `close`.
pub fn close_duplicate(fd: impl AsFd) -> Result<()> {
    let duplicate = rustix::io::fcntl_dupfd_cloexec(fd, 0)?.into_raw_fd();
    // SAFETY: the descriptor was created one line above, no other code knows it, and it is not used again.
    succeeded(unsafe { libc::close(duplicate) }.into())
}

/// Separates the mount namespace, root directory and current directory of the calling thread from those of other
/// threads.
///
/// # Errors
///
/// As `unshare`.
pub fn own_mount_namespace() -> Result<()> {
    // SAFETY: only CLONE_FILES is unsafe: it would separate this thread's descriptors from those of the others.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
}

/// Gives this process, which must have one thread, a user namespace and a mount namespace of its own. In it, the process has all
/// capabilities.
///
/// # Errors
///
/// As `unshare`.
pub fn own_user_namespace() -> Result<()> {
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS;
    // SAFETY: as above.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Separates the umask and current directory of the calling thread from those of other threads.
///
/// # Errors
///
/// As `unshare`.
pub fn own_umask() -> Result<()> {
    // SAFETY: as above.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}

/// Starts a copy of this process, which must have one thread only. Returns the copy's process id, or `None` in the
/// copy.
///
/// # Errors
///
/// `EBUSY` if there are more threads or `/proc` does not show how many; otherwise as `fork`.
pub fn fork() -> Result<Option<Pid>> {
    let threads = rustix::fs::stat("/proc/self/task").map(|stat| stat.st_nlink);
    // Two links of the directory itself, and one for each thread.
    if threads != Ok(3) {
        return Err(Errno::BUSY);
    }
    // SAFETY: the process has one thread, so no lock or allocation of another thread is copied half-done.
    match unsafe { libc::fork() } {
        ..0 => Err(last_errno()),
        0 => Ok(None),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Replaces this process by a program, which keeps its number, its signal mask and its descriptors without
/// `FD_CLOEXEC`. Returns only if that fails. Unlike [`std::process::Command`], this changes no signal's mask or handler.
pub fn execute(program: &CStr, arguments: &[CString]) -> Errno {
    let mut pointers: Vec<*const libc::c_char> = arguments.iter().map(|it| it.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: the strings and the array, which ends with a null pointer, live until the call returns.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    last_errno()
}

/// Takes a descriptor that this process was started with, and closes it on the next `exec`. To be called once for each
/// number, and before anything else in the process uses it.
///
/// # Errors
///
/// `EBADF` for a number without a descriptor, and for the standard streams, which the standard library uses.
pub fn take_inherited(number: i32) -> Result<OwnedFd> {
    if number <= 2 {
        return Err(Errno::BADF);
    }
    // SAFETY: the call takes only numbers, and fails for a number without a descriptor.
    let set = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    succeeded(set.into())?;
    // SAFETY: it is open, and by the contract of this function no other code owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Turns the result of a C function into its error.
fn succeeded(result: libc::c_long) -> Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
