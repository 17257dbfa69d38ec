//! Implements `flock` on the file beneath.
//!
//! Locks taken through the mount and beside it therefore exclude each other. A blocking request waits in `lock_waiter`.
//!
//! On a disk, a lock is free as soon as the `close` that releases it has returned, or its process has ended. The kernel
//! reports that only afterwards (`FUSE_RELEASE` is not waited for), so the next request for the lock may be processed
//! before the report. But of files that are named as locks, the kernel reports each `close` before it returns (`FUSE_FLUSH`): if the
//! holder has closed the file, a request that does not wait is refused only after a while, in which `FUSE_RELEASE` arrives if this was
//! the last descriptor of the file. Of other files on local disks it does not, as each report delays the `close`: for these, such a
//! request always waits for this while ([`LockRefusal`]). So does a request for a lock whose holder has closed another descriptor of the file:
//! a process that takes the lock and then starts another does that.

use fuser::ReplyEmpty;
use rustix::fs::FlockOperation;
use rustix::io::{Errno, Result};

use crate::mount::attributes::errno;
use crate::mount::lock_waiter::{FlockResult, LockRefusal, LockRequest};
use crate::mount::{Mount, replies};

impl Mount {
    /// Takes or releases a lock. If another process holds it and `wait` is set, the request waits on behalf of thread
    /// `tid`.
    pub(in crate::mount) fn flock(
        &self,
        handle: u64,
        kind: i32,
        wait: bool,
        tid: u32,
        reply: ReplyEmpty,
    ) {
        let (file, operation) = match self.handles.file(handle).and_then(|file| {
            let operation = non_blocking(kind)?;
            Ok((file, operation))
        }) {
            Ok(found) => found,
            Err(error) => return reply.error(errno(error)),
        };
        let mut tried = self.locks.attempt(&file, operation);
        let may_be_released = self.handles.lock_may_be_released(file.node);
        if !wait && !may_be_released && matches!(tried, FlockResult::Held) {
            // The lock may just have been released.
            tried = self.locks.attempt(&file, operation);
        }
        match tried {
            FlockResult::Done(result) if operation == FlockOperation::NonBlockingUnlock => {
                self.locks.notify_released();
                self.activity.altered_for_good(file.node);
                replies::empty(result, reply);
            }
            FlockResult::Done(result) => self.locks.answer(&file, result, reply),
            FlockResult::Held if !wait && !may_be_released => {
                reply.error(errno(Errno::WOULDBLOCK));
            }
            FlockResult::Held => self.locks.wait(LockRequest {
                file,
                operation,
                tid,
                refused: (!wait).then(LockRefusal::soon),
                reply,
            }),
        }
    }

    /// Releases the lock of a file that no process has open any more. The lock disappears no later than the file
    /// ([`crate::mount::tables::handles::Handles::lock_may_be_released`]). Returns whether there was one.
    pub(in crate::mount) fn release_lock(&self, handle: u64) -> bool {
        match self.handles.file(handle) {
            Ok(file) if file.lock.is_held() => {
                let _ = self.locks.attempt(&file, FlockOperation::NonBlockingUnlock);
                self.locks.notify_released();
                true
            }
            _ => false,
        }
    }
}

fn non_blocking(kind: i32) -> Result<FlockOperation> {
    match kind {
        libc::F_RDLCK => Ok(FlockOperation::NonBlockingLockShared),
        libc::F_WRLCK => Ok(FlockOperation::NonBlockingLockExclusive),
        libc::F_UNLCK => Ok(FlockOperation::NonBlockingUnlock),
        _ => Err(Errno::INVAL),
    }
}
