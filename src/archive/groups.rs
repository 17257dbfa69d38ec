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
use super::store::{Group, Step, Stored};
use crate::workspace::jobs::JobId;

/// How many jobs go together at most.
const JOBS: u64 = 256;

/// After how many bytes a group ends.
const BYTES: u64 = 512 << 20;

/// How many groups there would be if each descriptor that the process may have were a job's. A staged job has four open, two
/// groups are under way at once, and that is to be half of what there is.
const SHARES: u64 = 16;

/// A group that has been staged.
type Staged<'a, 'b> = (Group<'a>, &'b [JobId], Vec<Result<Step>>);

/// Stores jobs, group after group. Each group is given by `begin`; where there is none, by `refused` what becomes of the jobs.
pub(super) fn store<'a>(
    jobs: &[JobId],
    begin: impl Fn() -> io::Result<Group<'a>>,
    refused: impl Fn(&io::Error, &[JobId]) -> Vec<Result<Stored>>,
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
                    results.extend(before.take().map_or_else(Vec::new, Completion::wait));
                    return results.extend(refused(&error, rest));
                }
            };
            let staged = group.stage_all(rest.get(..count).unwrap_or(rest), BYTES);
            let (together, others) = rest.split_at(staged.len().min(rest.len()));
            rest = others;
            results.extend(before.take().map_or_else(Vec::new, Completion::wait));
            let staged = (group, together, staged);
            match rest.is_empty() {
                true => results.extend(complete(staged)),
                false => before = Some(Completion::start(scope, staged)),
            }
        }
    });
    results
}

fn complete((group, jobs, staged): Staged<'_, '_>) -> Vec<Result<Stored>> {
    group.complete(jobs, staged)
}

/// A group that gets its place, on another thread if one may be had.
enum Completion<'scope> {
    UnderWay(ScopedJoinHandle<'scope, Vec<Result<Stored>>>),
    Done(Vec<Result<Stored>>),
}

impl<'scope> Completion<'scope> {
    fn start<'a: 'scope, 'b: 'scope>(
        scope: &'scope Scope<'scope, '_>,
        staged: Staged<'a, 'b>,
    ) -> Completion<'scope> {
        let slot = Arc::new(Mutex::new(Some(staged)));
        let theirs = slot.clone();
        let all = move || {
            let staged = theirs.lock().take();
            staged.map_or_else(Vec::new, complete)
        };
        let thread = Builder::new().name("xpmfs-places".to_owned());
        match thread.spawn_scoped(scope, all) {
            Ok(handle) => Completion::UnderWay(handle),
            Err(_) => {
                let staged = slot.lock().take();
                Completion::Done(staged.map_or_else(Vec::new, complete))
            }
        }
    }

    fn wait(self) -> Vec<Result<Stored>> {
        match self {
            Completion::Done(results) => results,
            Completion::UnderWay(handle) => handle
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        }
    }
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
