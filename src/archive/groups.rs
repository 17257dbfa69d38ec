//! Jobs are stored in groups: while one is made durable and gets its place, the next is copied.
//!
//! A group costs two waits for the disk, whatever is in it; so it is large, but for three reasons to end it: the descriptors that each
//! staged job has open, what is lost if the process ends before they have their places, and how long the first waits for the
//! last.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};

use super::error::Result;
use super::store::{Due, Group, Stored};

/// How many jobs go together at most.
const JOBS: u64 = 256;

/// After how many bytes a group ends.
const BYTES: u64 = 512 << 20;

/// How many groups there would be if each descriptor that the process may have were a job's. A staged job has four open, two
/// groups are under way at once, and that is to be half of what there is.
const SHARES: u64 = 16;

/// Stores jobs, group after group. Each group is given by `begin`; where there is none, by `refused` what becomes of the jobs.
pub(super) fn store<'a>(
    jobs: &[Due],
    begin: impl Fn() -> io::Result<Group<'a>>,
    refused: impl Fn(&io::Error, &[Due]) -> Vec<Result<Stored>>,
) -> Vec<Result<Stored>> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = usize::try_from((limit / SHARES).clamp(1, JOBS)).unwrap_or(1);
    let mut results = Vec::with_capacity(jobs.len());
    std::thread::scope(|scope| {
        let mut before = None;
        let mut rest = jobs;
        while !rest.is_empty() {
            let group = match begin() {
                Ok(group) => group,
                Err(error) => {
                    results.extend(before.take().map_or_else(Vec::new, Aside::wait));
                    return results.extend(refused(&error, rest));
                }
            };
            let staged = group.stage_all(rest.get(..count).unwrap_or(rest), BYTES);
            let (together, others) = rest.split_at(staged.len().min(rest.len()));
            rest = others;
            results.extend(before.take().map_or_else(Vec::new, Aside::wait));
            let complete = move || group.complete(together, staged);
            match rest.is_empty() {
                true => results.extend(complete()),
                false => before = Some(Aside::start(scope, "xpmfs-places", complete)),
            }
        }
    });
    results
}

/// What is done meanwhile, on another thread if one may be had; if not, at once.
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

    /// What came of it.
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

/// Calls with each item, on several threads, and gives the results in order.
pub(super) fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    call: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    in_parallel_while(threads, items, || true, call)
}

/// The same, until it is said that no further item is to be begun: there are as many results, then, as items were begun.
/// The first always is.
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
            // Where no thread may be had, it takes longer.
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
    fn what_is_not_begun_has_no_result_and_the_first_always_is() {
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
