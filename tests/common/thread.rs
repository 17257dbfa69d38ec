//! What needs `unsafe`: a thread's own umask, `truncate`, and memory that is mapped.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};
use rustix::thread::UnshareFlags;

/// Gives this thread a umask of its own.
pub(crate) fn own_umask() -> Result<()> {
    // SAFETY: only CLONE_FILES is unsafe.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}

/// Truncates a file by its path: `truncate(2)`, which rustix lacks.
pub(crate) fn truncate(path: &std::path::Path, length: u64) -> Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a path that ends in NUL.
    match unsafe { libc::truncate(path.as_ptr(), length.try_into().unwrap()) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
    }
}

/// The length of what is mapped, in bytes.
pub(crate) const PAGE: usize = 4096;

/// The first page of a file, mapped.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: *mut std::ffi::c_void,
}

impl Mapping {
    pub(crate) fn new(file: impl AsFd, shared: bool, write: bool) -> Result<Mapping> {
        let flags = match shared {
            true => libc::MAP_SHARED,
            false => libc::MAP_PRIVATE,
        };
        let rights = match write {
            true => libc::PROT_READ | libc::PROT_WRITE,
            false => libc::PROT_READ,
        };
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: no address is asked for, so nothing that is mapped already changes.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, rights, flags, fd, 0) };
        if address == libc::MAP_FAILED {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap());
        }
        Ok(Mapping { address })
    }

    /// A byte; the file must reach beyond it.
    pub(crate) fn read(&self, at: usize) -> u8 {
        assert!(at < PAGE);
        // SAFETY: the page is mapped until this is dropped, and `at` lies in it.
        unsafe { self.address.cast::<u8>().add(at).read_volatile() }
    }

    /// Changes a byte, and waits until the file has it: it is the system's choice when that is, and the file's
    /// time with it. The file must reach beyond it, and the mapping be for writing.
    pub(crate) fn write(&self, at: usize, byte: u8) {
        assert!(at < PAGE);
        // SAFETY: as in `read`.
        unsafe { self.address.cast::<u8>().add(at).write_volatile(byte) };
        // SAFETY: as in `read`.
        unsafe { libc::msync(self.address, PAGE, libc::MS_SYNC) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to what is mapped.
        unsafe { libc::munmap(self.address, PAGE) };
    }
}
