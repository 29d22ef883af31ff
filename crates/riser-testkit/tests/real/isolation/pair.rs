//! Two tenants, and the words by which what belongs to them is known wherever it shows.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use riser_core::tenant::{ApiKey, KeyHash, SigningKey};
use riser_core::{Grant, Tenant, TenantId};
use riser_edge::auth::new_api_key;

use super::world::World;
use crate::unique;

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// What belongs to one tenant shows at the other, or where it is nobody's.
    Foreign(String),
    /// What a tenant should have seen it has not.
    Missing(String),
}

/// A tenant of the two.
pub(super) struct One {
    pub(super) id: TenantId,
    /// In all that it writes. Also the name of its API key, of a building, of an edge: so all that comes of it carries this.
    pub(super) canary: String,
    pub(super) key: String,
    hash: KeyHash,
    pub(super) tenant: Tenant,
}

/// Two tenants that nobody else is.
pub(super) struct Pair {
    /// In every name that is theirs and nobody else's.
    pub(super) run: String,
    pub(super) of: [One; 2],
    /// Whose a word is: canaries, the digests of commands, the numbers of streams.
    marks: Mutex<HashMap<String, usize>>,
}

/// The words of a text. What the two tenants are known by is words, whatever stands around them.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

fn one(letter: char, run: &str) -> One {
    let canary = format!("k{letter}{run}");
    let (key, hash) = new_api_key(None);
    let signing = SigningKey::hs256("k", format!("a secret of {canary}, of more than 32 bytes"));
    let tenant = Tenant {
        api_keys: [(hash, ApiKey::new(&canary, vec![Grant::everything()]))].into(),
        signing_kid: signing.kid.clone(),
        signing_keys: [signing.entry()].into(),
        ..Tenant::default()
    };
    One { id: format!("{letter}{run}").parse().expect("a tenant name"), canary, key, hash, tenant }
}

impl Pair {
    /// Two tenants, which edges know from now on.
    pub(super) fn new(world: &World) -> Self {
        let run = unique();
        let of = ['a', 'b'].map(|letter| one(letter, &run));
        assert_ne!(of[0].hash, of[1].hash);
        world.tenants.send_modify(|table| {
            let table = Arc::make_mut(table);
            for one in &of {
                table.insert(one.id.clone(), one.tenant.clone());
            }
        });
        let marks = of.iter().enumerate().map(|(whose, one)| (one.canary.clone(), whose)).collect();
        Self { run, of, marks: Mutex::new(marks) }
    }

    /// From now on this word is known to be one tenant's.
    pub(super) fn mark(&self, word: impl Into<String>, whose: usize) -> Result<(), Finding> {
        let word = word.into();
        match self.marks.lock().insert(word.clone(), whose) {
            Some(other) if other != whose => Err(Finding::Foreign(format!("both were given {word}"))),
            _ => Ok(()),
        }
    }

    /// The same for what makes the name of a command its own.
    pub(super) fn mark_command(&self, cmd: &str, whose: usize) -> Result<(), Finding> {
        let digest = cmd.split('.').nth(2).ok_or_else(|| Finding::Missing("the digest of a command".into()))?;
        self.mark(digest, whose)
    }

    /// Which of the two a text names, and which of the two has marks in it.
    pub(super) fn shown(&self, text: &str) -> ([bool; 2], [bool; 2]) {
        let (mut named, mut marked) = ([false; 2], [false; 2]);
        let marks = self.marks.lock();
        for word in words(text) {
            for (whose, one) in self.of.iter().enumerate() {
                named[whose] |= word == one.id.as_str();
            }
            if let Some(&whose) = marks.get(word) {
                marked[whose] = true;
            }
        }
        (named, marked)
    }

    /// Checks a text that one tenant was given.
    pub(super) fn check(&self, whose: usize, text: &str) -> Result<(), Finding> {
        let (named, marked) = self.shown(text);
        if named[1 - whose] || marked[1 - whose] {
            return Err(Finding::Foreign(format!("{} was given {text}", self.of[whose].id)));
        }
        Ok(())
    }
}
