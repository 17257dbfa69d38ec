//! Lowers the priority of background threads.

use rustix::process::{Pid, setpriority_process};

use super::calls;

/// The nice value: high enough that other computations are hardly slowed, and low enough that the work still
/// progresses.
const NICE: i32 = 10;

/// Lowers the processor and disk priority of the calling thread, and of threads that it starts later. The disk's
/// scheduler must support priorities. Never fails: a priority that cannot be set is skipped.
pub fn lower_priority() {
    // On Linux, the nice value is one of the thread; without a process id, the call is for the calling thread.
    let itself: Option<Pid> = None;
    if let Err(error) = setpriority_process(itself, NICE) {
        tracing::debug!("cannot set the nice value: {error}");
    }
    if let Err(error) = calls::lowest_io_priority() {
        tracing::debug!("cannot lower the disk priority: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_of_thread_and_its_children_is_lower() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let (own, inner) = std::thread::spawn(move || {
            lower_priority();
            (nice(), std::thread::spawn(nice).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((own, inner), (NICE.max(before), NICE.max(before)));
        assert_eq!(nice(), before);
    }
}
