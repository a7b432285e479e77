//! Mailboxes: one request at a time from one client to one server, answered in place.
//!
//! The client fills the request's words, [`Mailbox::post`]s, rings the server's doorbell and waits. The
//! server serves whatever is [`Mailbox::pending`] and [`Mailbox::complete`]s it. The reply stays until the
//! next post; a server that starts anew finds an unanswered request still pending.

use crate::le::AtomicLe32;
use crate::{futex, shm_struct};
use std::sync::atomic::Ordering;
use std::time::Duration;

shm_struct! {
    /// Sequence numbers of a mailbox; the request's and reply's words lie beside it.
    pub struct Mailbox: 16 => {
        /// Number of the latest request; written by the client.
        pub posted: AtomicLe32,
        /// Number of the latest answered request; written by the server.
        pub answered: AtomicLe32,
        /// Non-zero while the client sleeps on `answered`.
        pub sleeping: AtomicLe32,
        /// Client: number of the latest answer it has taken up. A request that is answered but not taken was
        /// interrupted: the client takes that answer instead of asking again.
        pub taken: AtomicLe32,
    }
}

impl Mailbox {
    /// Client: makes the request visible. Ring the server's doorbell afterwards.
    #[inline]
    pub fn post(&self) {
        self.posted.store(self.posted.get().wrapping_add(1), Ordering::Release);
    }

    /// Whether a request waits for its answer. The request's words are visible when it does, and the reply's
    /// when it does not.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> bool {
        self.posted.load(Ordering::Acquire) != self.answered.load(Ordering::Acquire)
    }

    /// Server: makes the reply visible and wakes the client.
    #[inline]
    pub fn complete(&self) {
        self.answered.store(self.posted.get(), Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) != 0 {
            futex::wake(&self.answered, 1);
        }
    }

    /// Client: waits for the answer, spinning `spins` rounds before it sleeps. While it waits it calls
    /// `keep_waiting` at least every 10 ms and gives up when that says no.
    ///
    /// Returns whether the answer has come. After giving up, the request is still posted: call `wait`
    /// again to take its answer; never post another one over it.
    #[inline]
    pub fn wait(&self, spins: u32, mut keep_waiting: impl FnMut() -> bool) -> bool {
        let posted = self.posted.get();
        for _ in 0..spins {
            if self.answered.load(Ordering::Acquire) == posted {
                return true;
            }
            crate::sync::spin_loop();
        }
        self.sleep_for_answer(posted, &mut keep_waiting)
    }

    #[cold]
    fn sleep_for_answer(&self, posted: u32, keep_waiting: &mut dyn FnMut() -> bool) -> bool {
        loop {
            // SeqCst here and in `complete`: either the server sees us asleep or we see its answer.
            self.sleeping.store(1, Ordering::SeqCst);
            let answered = self.answered.load(Ordering::SeqCst);
            if answered != posted {
                futex::wait(&self.answered, answered, Some(Duration::from_millis(10)));
            }
            self.sleeping.store(0, Ordering::Relaxed);
            if self.answered.load(Ordering::Acquire) == posted {
                return true;
            }
            if !keep_waiting() {
                return false;
            }
        }
    }
}
