//! Which answer belongs to which question. All answers of a process come to one subscription; a question that is no
//! longer waited for leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::Message;
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Questions that wait for an answer at once, in a whole process. At a millisecond per answer this is four million
/// events a second; more of them mean that it does not answer, and further questions fail at once.
pub(super) const QUESTIONS: usize = 4_096;

/// The questions that wait.
#[derive(Default)]
pub(super) struct Replies {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, mpsc::Sender<Message>>>,
}

/// A question that was or will be asked. Dropping it forgets it.
pub(super) struct Question<'a> {
    replies: &'a Replies,
    /// Its number, the last token of its reply subject.
    pub(super) number: u64,
    answers: mpsc::Receiver<Message>,
}

impl Replies {
    /// A question with at most so many answers; none when too many wait.
    pub(super) fn question(&self, answers: usize) -> Option<Question<'_>> {
        let (sender, answers) = mpsc::channel(answers);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting.lock();
        if waiting.len() >= QUESTIONS {
            return None;
        }
        waiting.insert(number, sender);
        Some(Question { replies: self, number, answers })
    }

    /// Takes an answer to whom it is for; `false` when nobody waits for it, or not for one more.
    pub(super) fn answer(&self, message: Message) -> bool {
        let number = message.subject.rsplit('.').next().and_then(|token| token.parse::<u64>().ok());
        let waiting = self.waiting.lock();
        number.and_then(|number| waiting.get(&number)).is_some_and(|sender| sender.try_send(message).is_ok())
    }

    /// Ends all that wait: their answers went to a connection that is gone.
    pub(super) fn give_up(&self) {
        self.waiting.lock().clear();
    }
}

impl Question<'_> {
    /// The next answer; none when there will be none.
    pub(super) async fn next(&mut self) -> Option<Message> {
        self.answers.recv().await
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.replies.waiting.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: String) -> Message {
        Message {
            subject: subject.into(),
            reply: None,
            payload: bytes::Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[tokio::test]
    async fn an_answer_comes_to_its_own_question() {
        let replies = Replies::default();
        let (mut one, mut two) = (replies.question(1).expect("room"), replies.question(1).expect("room"));
        let number = two.number;
        assert!(replies.answer(message(format!("_INBOX.x.{number}"))));
        assert_eq!(two.next().await.map(|m| m.subject.to_string()), Some(format!("_INBOX.x.{number}")));
        assert!(one.answers.try_recv().is_err());
        for bad in ["_INBOX.x.", "_INBOX.x.y", "_INBOX.x.99", "_INBOX.x.-1"] {
            assert!(!replies.answer(message(bad.into())), "{bad}");
        }
        replies.give_up();
        assert!(one.next().await.is_none());
    }

    #[test]
    fn a_question_that_was_dropped_leaves_nothing_behind() {
        let replies = Replies::default();
        let questions: Vec<_> = (0..QUESTIONS).map(|_| replies.question(1).expect("room")).collect();
        assert!(replies.question(1).is_none(), "more questions than may wait");
        drop(questions);
        assert!(replies.waiting.lock().is_empty());
        assert!(replies.question(1).is_some());
    }

    #[test]
    fn answers_beyond_what_was_asked_for_are_lost() {
        let replies = Replies::default();
        let question = replies.question(2).expect("room");
        let answer = || replies.answer(message(format!("i.{}", question.number)));
        assert_eq!([answer(), answer(), answer()], [true, true, false]);
    }
}
