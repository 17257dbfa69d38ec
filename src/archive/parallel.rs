//! Calls a function for many items on several threads, or on one thread beside the caller's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use parking_lot::Mutex;

/// A call on another thread; if no thread can be started, it runs at once.
pub(super) enum Aside<'scope, T> {
    UnderWay(ScopedJoinHandle<'scope, Option<T>>),
    Done(Option<T>),
}

impl<'scope, T: Default + Send + 'scope> Aside<'scope, T> {
    pub(super) fn start(
        scope: &'scope Scope<'scope, '_>,
        name: &str,
        call: impl FnOnce() -> T + Send + 'scope,
    ) -> Aside<'scope, T> {
        let slot = Arc::new(Mutex::new(Some(call)));
        let theirs = slot.clone();
        let thread = Builder::new().name(name.to_owned());
        match thread.spawn_scoped(scope, move || run(&theirs)) {
            Ok(handle) => Aside::UnderWay(handle),
            Err(_) => Aside::Done(run(&slot)),
        }
    }

    /// Waits for the result.
    pub(super) fn wait(self) -> T {
        let done = match self {
            Aside::Done(done) => done,
            Aside::UnderWay(handle) => handle
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        };
        done.unwrap_or_default()
    }
}

fn run<T>(slot: &Mutex<Option<impl FnOnce() -> T>>) -> Option<T> {
    let call = slot.lock().take()?;
    Some(call())
}

/// Calls a function with each item, on several threads, and returns the results in order.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    call: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    in_parallel_while(threads, items, || true, call)
}

/// As [`in_parallel`], but begins no further item once `go_on` returns false, except the first. Returns the results of the items that were
/// begun.
pub(super) fn in_parallel_while<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    go_on: impl Fn() -> bool + Sync,
    call: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        while next.load(Ordering::Relaxed) == 0 || go_on() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            let result = call(item);
            results.lock().push((index, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let thread = Builder::new().name("xpmfs-jobs".to_owned());
            // If no thread can be started, it takes longer.
            let _ = thread.spawn_scoped(scope, work);
        }
        work();
    });
    let mut results = results.into_inner();
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_are_not_begun_have_no_result_and_the_first_is_always_begun() {
        let items: Vec<usize> = (0..100).collect();
        for threads in 1..8 {
            let begun = AtomicUsize::new(0);
            let call = |item: &usize| {
                begun.fetch_add(1, Ordering::SeqCst);
                *item
            };
            let go_on = || begun.load(Ordering::SeqCst) < 10;
            let results = in_parallel_while(threads, &items, go_on, call);
            assert_eq!(results, items[..results.len()]);
            // Each thread may have begun one meanwhile.
            assert!((10..10 + threads).contains(&results.len()), "{results:?}");
            assert_eq!(in_parallel_while(1, &items, || false, call), [0]);
            assert_eq!(in_parallel(threads, &items, call), items);
        }
    }
}
