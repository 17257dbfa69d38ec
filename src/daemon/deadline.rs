//! Asking something that may never answer: a hung mount, a dead NFS server.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Runs `question` in a thread of its own and waits at most `limit` for its answer.
///
/// Gives `None` when there is none by then (or no thread could be started); the thread is left
/// behind, so `question` owns all that it uses.
pub fn within<T: Send + 'static>(
    limit: Duration,
    question: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (answer, answered) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("deadline".into())
        .spawn(move || answer.send(question()))
        .ok()?;
    answered.recv_timeout(limit).ok()
}

/// Looks again and again, ever more seldom, whether `condition` holds, for at most `limit`; tells whether it came to hold.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = std::time::Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_time_is_given() {
        assert_eq!(within(Duration::from_secs(10), || 7), Some(7));
    }

    #[test]
    fn a_question_without_an_answer_does_not_hold_us() {
        let (keep, never) = mpsc::channel::<()>();
        assert_eq!(
            within(Duration::from_millis(10), move || never.recv().is_ok()),
            None
        );
        drop(keep);
    }

    #[test]
    fn waiting_ends_when_the_condition_holds_or_the_time_is_up() {
        let mut looks = 0;
        assert!(wait_until(Duration::from_secs(10), || {
            looks += 1;
            looks == 3
        }));
        assert!(!wait_until(Duration::from_millis(5), || false));
    }
}
