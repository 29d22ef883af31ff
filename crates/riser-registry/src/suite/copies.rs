//! Copies of records that a store is given back.

use riser_core::Epoch;
use riser_core::GatewayKey;
use riser_core::command::{CommandId, KEPT_MS, Record, Said, Status, Step, Took, Word};

use super::Bench;
use super::commands::{digest, statuses};
use crate::{CommandStore, Registry, StateStore};

impl<S: Registry + StateStore + CommandStore> Bench<S> {
    async fn adopt(&self, key: &GatewayKey, copy: &Record) -> bool {
        self.two.adopt(key, copy).await.expect("an answer")
    }

    /// The record of a held command, and a gateway of another tenant with the same address, of which nothing is known.
    async fn copy(&self, number: usize) -> (Record, GatewayKey) {
        let record = self.issue(&self.key("b/g"), &self.command(number, true)).await.record;
        (record, self.key_of("u", "b/g"))
    }
}

/// A record that the session of this epoch was sent.
fn sent(record: &Record, epoch: u64) -> Record {
    let (mut sent, epoch) = (record.clone(), Epoch(epoch));
    let step = Step::Send { epoch, remembers_ms: 0 };
    assert_eq!(sent.step(&step, Some(epoch), record.seq), Took::Yes);
    sent
}

/// "Records a command as a copy of its record says. Places that are given from now on are greater than its own."
pub async fn a_copy_is_recorded_as_it_is_and_counts<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (record, key) = bench.copy(1).await;
    assert!(bench.adopt(&key, &record).await);
    assert!(!bench.adopt(&key, &record).await, "it was recorded before");
    assert_eq!(bench.look(&key, &record.cmd).await, record);
    assert_eq!(bench.one.open(&key, 0, 9).await, Ok(vec![record.clone()]));
    assert_eq!(bench.one.latest(&key, None, 9).await, Ok(vec![record.clone()]));
    let new = bench.issue(&key, &bench.command(2, true)).await.record;
    assert!(new.seq > record.seq);
    assert_eq!(new.prev, record.seq);
    assert_eq!(bench.issue(&key, &bench.command(1, true)).await.record.cmd, record.cmd, "it is the same command");
    let lease = bench.held("one").await;
    assert_eq!(bench.acquire(&lease, &key).await.open_commands, 2);
}

/// "What is known under its digest gives way, unless that follows the copy."
pub async fn a_copy_gives_way_to_what_follows_it<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (record, _) = bench.copy(1).await;
    let key = bench.key("b/g");
    assert!(!bench.adopt(&key, &record).await, "it is there");
    bench.step(&key, &record.cmd, &Step::Cancel).await;
    assert!(!bench.adopt(&key, &record).await, "it went on");
    assert_eq!(statuses(&bench.look(&key, &record.cmd).await), [Status::Held, Status::Cancelled]);
    assert_eq!(bench.one.open(&key, 0, 9).await, Ok(vec![]));
}

/// The same, when it does not follow: what was acted upon is not forgotten.
pub async fn a_copy_that_knows_more_takes_the_place_of_what_knows_less<S: Registry + StateStore + CommandStore>(
    bench: &Bench<S>,
) {
    let (record, _) = bench.copy(1).await;
    let key = bench.key("b/g");
    let ahead = sent(&record, 7);
    assert!(bench.adopt(&key, &ahead).await);
    assert_eq!(bench.look(&key, &record.cmd).await, ahead);
    // Sent to one session by the copy, and to another by the store: it is the copy's session that was told.
    let other = sent(&record, 8);
    assert!(bench.adopt(&key, &other).await);
    assert_eq!(bench.look(&key, &record.cmd).await, other);
    let mut decided = other;
    let word = Step::Word(Word { status: Said::Succeeded, code: None, data: None });
    assert_eq!(decided.step(&word, None, record.seq), Took::Yes);
    assert!(bench.adopt(&key, &decided).await);
    assert!(!bench.adopt(&key, &record).await);
    assert_eq!(bench.one.open(&key, 0, 9).await, Ok(vec![]));
    assert_eq!(bench.one.latest(&key, None, 9).await, Ok(vec![decided]));
}

/// The same: a key that was used again, because the store did not know it any more.
pub async fn a_copy_takes_the_place_of_another_command_of_its_digest<S: Registry + StateStore + CommandStore>(
    bench: &Bench<S>,
) {
    let (record, _) = bench.copy(1).await;
    let key = bench.key("b/g");
    let older = Record {
        cmd: CommandId { at_ms: record.cmd.at_ms - 5_000, ..record.cmd.clone() },
        seq: record.seq - 5_000,
        ..record.clone()
    };
    assert!(bench.adopt(&key, &older).await);
    assert_eq!(bench.step(&key, &record.cmd, &Step::Look).await, None);
    assert_eq!(bench.one.latest(&key, None, 9).await, Ok(vec![older.clone()]));
    assert_eq!(bench.one.open(&key, 0, 9).await, Ok(vec![older]));
}

/// "Or the copy's time is over."
pub async fn a_copy_whose_time_is_over_is_not_recorded<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (record, key) = bench.copy(1).await;
    let mut over = Record { deadline_at_ms: record.cmd.at_ms - KEPT_MS - 1_000, ..record.clone() };
    over.step(&Step::Look, None, record.cmd.at_ms);
    assert!(over.decided().is_some());
    assert!(!bench.adopt(&key, &over).await);
    assert_eq!(bench.step(&key, &over.cmd, &Step::Look).await, None);
    assert_eq!(bench.one.latest(&key, None, 9).await, Ok(vec![]));
}

/// A copy that nobody decided is decided by the store's clock, however late.
pub async fn a_copy_that_is_overdue_is_decided_by_the_next_look<S: Registry + StateStore + CommandStore>(
    bench: &Bench<S>,
) {
    let (record, key) = bench.copy(1).await;
    let overdue = Record { deadline_at_ms: record.cmd.at_ms - 1_000, ..record.clone() };
    let mut also = sent(&another(&record, 2), 7);
    also.deadline_at_ms = overdue.deadline_at_ms;
    for copy in [&overdue, &also] {
        assert!(bench.adopt(&key, copy).await);
    }
    assert_eq!(statuses(&bench.look(&key, &overdue.cmd).await), [Status::Held, Status::Expired]);
    assert_eq!(statuses(&bench.look(&key, &also.cmd).await), [Status::Held, Status::Sent, Status::Unknown]);
}

/// The record of another command of the same gateway.
fn another(record: &Record, number: usize) -> Record {
    let cmd = CommandId { digest: digest(number), ..record.cmd.clone() };
    Record { cmd, seq: record.seq + 1, ..record.clone() }
}

/// "A number that stays the same for this client as long as nothing may have been lost."
pub async fn a_life_stays_the_same_while_nothing_is_lost<S: Registry + StateStore + CommandStore>(bench: &Bench<S>) {
    let (one, two) = (bench.one.life().await.expect("an answer"), bench.two.life().await.expect("an answer"));
    bench.copy(1).await;
    assert_eq!(bench.one.life().await, Ok(one));
    assert_eq!(bench.two.life().await, Ok(two));
}
