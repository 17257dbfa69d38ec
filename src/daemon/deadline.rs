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

/// Asks all questions at once, each in a thread of its own, and waits at most `limit` for all together. Gives `None` for a
/// question without an answer by then, and for one that no thread could be started for.
pub fn all_within<T: Send + 'static, Q: FnOnce() -> T + Send + 'static>(
    limit: Duration,
    questions: impl IntoIterator<Item = Q>,
) -> Vec<Option<T>> {
    let (answer, answered) = mpsc::channel();
    let mut answers = Vec::new();
    let mut left: usize = 0;
    for (index, question) in questions.into_iter().enumerate() {
        let answer = answer.clone();
        let started = thread::Builder::new()
            .name("deadline".into())
            // Nobody listens any more if it took too long.
            .spawn(move || drop(answer.send((index, question()))));
        left += usize::from(started.is_ok());
        answers.push(None);
    }
    let end = std::time::Instant::now() + limit;
    while left > 0 {
        let Ok((index, given)) =
            answered.recv_timeout(end.saturating_duration_since(std::time::Instant::now()))
        else {
            break;
        };
        left -= 1;
        if let Some(place) = answers.get_mut(index) {
            *place = Some(given);
        }
    }
    answers
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
    fn many_without_an_answer_hold_us_no_longer_than_one() {
        let began = std::time::Instant::now();
        let (keep, never) = mpsc::channel::<()>();
        let never = std::sync::Arc::new(std::sync::Mutex::new(never));
        let questions = (0..20).map(|number| {
            let never = never.clone();
            move || match number {
                7 => 7,
                _ => never
                    .lock()
                    .map_or(0, |never| i32::from(never.recv().is_ok())),
            }
        });
        let answers = all_within(Duration::from_millis(300), questions);
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(answers.len(), 20);
        assert_eq!(answers.iter().flatten().collect::<Vec<_>>(), [&7]);
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
