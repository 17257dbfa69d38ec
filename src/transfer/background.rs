//! Work in the background gives way to what people wait for.

use rustix::process::{Pid, setpriority_process};

use crate::sys::calls;

/// How nice: enough that who computes beside it hardly notices, and not so much that it never gets on.
const NICE: i32 = 10;

/// Makes the calling thread, and those that it starts from now on, give way to others: with processors, and with disks whose
/// scheduler knows priorities. Never fails: what cannot be had is done without.
pub fn give_way() {
    // On Linux, a thread's own affair; without a process, it is the caller's.
    let itself: Option<Pid> = None;
    if let Err(error) = setpriority_process(itself, NICE) {
        tracing::debug!("archiving is not nice: {error}");
    }
    if let Err(error) = calls::lowest_io_priority() {
        tracing::debug!("archiving does not give way at disks: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gives_way_does_so_for_itself_and_for_those_that_it_starts() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let (own, inner) = std::thread::spawn(move || {
            give_way();
            (nice(), std::thread::spawn(nice).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((own, inner), (NICE.max(before), NICE.max(before)));
        assert_eq!(nice(), before);
    }
}
