//! Questions that the kernel may never answer.

use std::sync::mpsc;
use std::time::Duration;

/// How long such a question may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks in a thread of its own, which is left behind if it gets no answer: a look at a dead network or FUSE file system
/// waits for ever. None if there was none in time.
pub(crate) fn answered<T: Send + 'static>(question: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, hear) = mpsc::channel();
    std::thread::Builder::new()
        .name("look".into())
        .stack_size(256 << 10)
        .spawn(move || {
            let _ = tell.send(question());
        })
        .ok()?;
    hear.recv_timeout(PATIENCE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_an_answer_does_not_hold_the_run() {
        let begun = std::time::Instant::now();
        assert_eq!(answered(|| std::thread::sleep(Duration::from_secs(600))), None);
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(answered(|| 7), Some(7));
    }
}
