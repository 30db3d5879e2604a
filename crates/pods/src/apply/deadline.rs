//! Work that the kernel may never finish: an unmount of a dead network file system, a read of a stuck process.

use std::sync::mpsc;
use std::time::Duration;

use crate::error::Error;

/// Does the work on a thread of its own. None if it was not done in time: then the thread is left behind.
///
/// Such a thread ends with the process where the kernel waits in a way that a signal ends, as NFS and FUSE mostly do. Where
/// it does not, the process itself stays in the table until the file server answers, with its work done and its report
/// printed. A child in place of a thread would not have that flaw, and needs unsafe code or another program's flags.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, Error> {
    let (done, answer) = mpsc::channel();
    std::thread::Builder::new()
        .name("deadline".into())
        .spawn(move || done.send(work()))
        .map_err(Error::Thread)?;
    Ok(answer.recv_timeout(limit).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn what_does_not_end_in_time_is_left_behind() {
        let limit = Duration::from_millis(20);
        assert_eq!(within(limit, || 7).unwrap(), Some(7));
        let stuck = within(limit, || std::thread::sleep(Duration::from_secs(1)));
        assert_eq!(stuck.unwrap(), None);
    }
}
