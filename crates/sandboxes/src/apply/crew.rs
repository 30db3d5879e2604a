//! Doing the same to many things on a few threads.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;

use crate::error::Error;

/// Most of the work waits: for processes, for plugins, for the kernel's grace periods.
const THREADS: usize = 8;

/// Does `work` to each, in no order, and tells `each` about every one that is done, from the calling thread. Gives what came
/// of them, in no order.
pub(crate) fn all<X: Send, Y: Send>(
    items: Vec<X>,
    work: impl Fn(X) -> Y + Sync,
    mut each: impl FnMut(&Y),
) -> Result<Vec<Y>, Error> {
    let threads = THREADS.min(items.len());
    let queue = Mutex::new(items.into_iter());
    let (queue, work) = (&queue, &work);
    let next = move || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        for _ in 0..threads {
            let tell = tell.clone();
            let worker = move || {
                while let Some(item) = next() {
                    let _ = tell.send(work(item));
                }
            };
            let named = std::thread::Builder::new().name("repair".into());
            named.spawn_scoped(scope, worker).map_err(Error::Thread)?;
        }
        drop(tell);
        Ok(told.iter().inspect(|done| each(done)).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_done_once_and_told() {
        let mut told = 0;
        let mut done = all((0..100).collect(), |n| n * 2, |_| told += 1).unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..100).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(told, 100);
        assert!(all(Vec::<u32>::new(), |n| n, |_| {}).unwrap().is_empty());
    }
}
