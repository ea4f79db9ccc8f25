//! What a DHT node keeps for others: verified statements, merged by peer, bounded, forgotten in time. Pure: the
//! caller brings the time and the randomness.

use std::collections::HashMap;
use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;
use thiserror::Error;

use crate::PeerId;
use crate::model_id::ModelId;
use crate::swarm_name::SwarmName;

use super::record::MAX_RECORD_BYTES;
use super::{Entry, MergedRecord, SegmentKey, SignatureError, Signed, Statement};

/// Statements under one key: twice what a shard is meant to hold.
const MAX_STATEMENTS_PER_KEY: usize = 2048;

/// Voices for one model in the directory; more would say the same again.
const MAX_VOICES_PER_MODEL: usize = 4;

/// All statements a node keeps. At about 350 bytes each some 24 MiB.
const MAX_STATEMENTS: usize = 64 * 1024;

/// What distinguishes statements under one key: a server has one voice, and one for each model in the directory.
type Voice = (PeerId, Option<ModelId>);

struct Kept {
    signed: Signed,
    sequence: u64,
    expires: Duration,
}

/// Why a statement was not kept.
#[derive(Debug, Error)]
pub enum PutError {
    /// Not signed, not readable, or out of bounds.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The bytes are no signed statement.
    #[error("not a signed statement: {0}")]
    Malformed(#[from] postcard::Error),
    /// It belongs under another key.
    #[error("the statement does not belong under this key")]
    WrongKey,
    /// A newer one of the same peer is kept.
    #[error("a newer statement of {0} is known")]
    Outdated(PeerId),
    /// The node keeps as much as it may.
    #[error("the store is full")]
    Full,
}

/// The statements a node keeps for the swarm.
pub struct MergedStore {
    swarm: SwarmName,
    keys: HashMap<SegmentKey, HashMap<Voice, Kept>>,
    statements: usize,
}

impl MergedStore {
    /// An empty store for `swarm`.
    pub fn new(swarm: SwarmName) -> Self {
        Self { swarm, keys: HashMap::new(), statements: 0 }
    }

    /// Keeps the signed statement in `value` under `key`. `now` is the time since any fixed moment.
    ///
    /// # Errors
    /// [`PutError`] says why it is not kept; a statement that is already there is no error, but is not kept for longer:
    /// anybody can repeat what a server once said.
    pub fn put(&mut self, key: SegmentKey, value: &[u8], now: Duration) -> Result<(), PutError> {
        let signed: Signed = postcard::from_bytes(value)?;
        let statement = signed.verify(&self.swarm)?;
        if !key.admits(&statement) {
            return Err(PutError::WrongKey);
        }
        self.forget_expired(key, now);
        let voice = voice(&statement);
        let known = self.keys.get(&key).and_then(|voices| voices.get(&voice));
        match known {
            Some(kept) if kept.sequence > statement.sequence() => {
                return Err(PutError::Outdated(statement.peer()));
            }
            Some(kept) if kept.sequence == statement.sequence() => return Ok(()),
            Some(_) => {}
            None => self.make_room(key, &statement, now)?,
        }
        let kept = Kept {
            signed,
            sequence: statement.sequence(),
            expires: now + Duration::from_secs(statement.ttl_seconds().into()),
        };
        if self.keys.entry(key).or_default().insert(voice, kept).is_none() {
            self.statements += 1;
        }
        Ok(())
    }

    /// A random sample of what is kept under `key`, as large as fits an answer.
    pub fn get(&self, key: SegmentKey, now: Duration, rng: &mut impl Rng) -> Option<MergedRecord> {
        let mut live: Vec<&Kept> = self.keys.get(&key)?.values().filter(|kept| kept.expires > now).collect();
        if live.is_empty() {
            return None;
        }
        live.shuffle(rng);
        /// The count of entries and their number, as varints.
        const PREFIX_BYTES: usize = 10;
        /// The seconds left of one entry, as a varint.
        const ENTRY_PREFIX_BYTES: usize = 5;
        let mut room = MAX_RECORD_BYTES - PREFIX_BYTES;
        let entries = live
            .iter()
            .map_while(|kept| {
                room = room.checked_sub(kept.signed.encoded_len() + ENTRY_PREFIX_BYTES)?;
                Some(Entry { seconds_left: (kept.expires - now).as_secs() as u32, signed: kept.signed.clone() })
            })
            .collect();
        Some(MergedRecord { total: live.len() as u32, entries })
    }

    /// How many statements are kept, expired ones that nobody asked for included.
    pub fn len(&self) -> usize {
        self.statements
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.statements == 0
    }

    fn forget_expired(&mut self, key: SegmentKey, now: Duration) {
        if let Some(voices) = self.keys.get_mut(&key) {
            let before = voices.len();
            voices.retain(|_, kept| kept.expires > now);
            self.statements -= before - voices.len();
            if voices.is_empty() {
                self.keys.remove(&key);
            }
        }
    }

    fn make_room(&mut self, key: SegmentKey, statement: &Statement, now: Duration) -> Result<(), PutError> {
        if self.statements >= MAX_STATEMENTS {
            let keys: Vec<SegmentKey> = self.keys.keys().copied().collect();
            keys.into_iter().for_each(|key| self.forget_expired(key, now));
        }
        if self.statements >= MAX_STATEMENTS {
            return Err(PutError::Full);
        }
        let Some(voices) = self.keys.get_mut(&key) else {
            return Ok(());
        };
        if let Statement::Directory(entry) = statement {
            let same_model = |voice: &Voice| voice.1 == Some(entry.model);
            if voices.keys().filter(|voice| same_model(voice)).count() >= MAX_VOICES_PER_MODEL {
                let oldest = voices
                    .iter()
                    .filter(|(voice, _)| same_model(voice))
                    .min_by_key(|(_, kept)| kept.expires)
                    .map(|(voice, _)| *voice);
                if let Some(oldest) = oldest {
                    voices.remove(&oldest);
                    self.statements -= 1;
                }
                return Ok(());
            }
        }
        if voices.len() >= MAX_STATEMENTS_PER_KEY {
            return Err(PutError::Full);
        }
        Ok(())
    }
}

fn voice(statement: &Statement) -> Voice {
    match statement {
        Statement::Announcement(announcement) => (announcement.peer, None),
        Statement::Directory(entry) => (entry.peer, Some(entry.model)),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::tests_support::{announcement, directory_entry};
    use super::super::{Shard, segments};
    use super::*;
    use crate::Keypair;

    fn encoded(statement: &Statement, keys: &Keypair) -> Vec<u8> {
        let signed = Signed::new(statement, &SwarmName::default(), keys).unwrap();
        postcard::to_allocvec(&signed).unwrap()
    }

    fn key_of(keys: &Keypair) -> SegmentKey {
        let announcement = announcement(keys, 1);
        let shard = Shard::of(announcement.peer, 0);
        SegmentKey::segment(announcement.model, *segments(announcement.blocks).start(), shard)
    }

    const START: Duration = Duration::from_secs(1);

    #[test]
    fn the_highest_sequence_of_a_peer_wins_and_time_forgets_it() {
        let keys = Keypair::generate_ed25519();
        let mut store = MergedStore::new(SwarmName::default());
        let put = |store: &mut MergedStore, sequence, now| {
            let statement = Statement::Announcement(announcement(&keys, sequence));
            store.put(key_of(&keys), &encoded(&statement, &keys), now)
        };
        put(&mut store, 5, START).unwrap();
        put(&mut store, 5, START).unwrap();
        assert!(matches!(put(&mut store, 4, START), Err(PutError::Outdated(_))));
        put(&mut store, 6, START).unwrap();
        assert_eq!(store.len(), 1);
        let mut rng = StdRng::seed_from_u64(1);
        let record = store.get(key_of(&keys), START, &mut rng).unwrap();
        assert_eq!(record.total, 1);
        let statement = record.entries[0].signed.verify(&SwarmName::default()).unwrap();
        assert_eq!(statement.sequence(), 6);
        let later = START + Duration::from_secs(u64::from(statement.ttl_seconds()) + 1);
        assert_eq!(store.get(key_of(&keys), later, &mut rng), None);
    }

    #[test]
    fn repeating_old_words_does_not_keep_a_server_alive() {
        let keys = Keypair::generate_ed25519();
        let mut store = MergedStore::new(SwarmName::default());
        let statement = Statement::Announcement(announcement(&keys, 5));
        let value = encoded(&statement, &keys);
        let ttl = Duration::from_secs(statement.ttl_seconds().into());
        store.put(key_of(&keys), &value, START).unwrap();
        store.put(key_of(&keys), &value, START + ttl / 2).unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        assert!(store.get(key_of(&keys), START + ttl - Duration::from_secs(1), &mut rng).is_some());
        assert_eq!(store.get(key_of(&keys), START + ttl, &mut rng), None);
    }

    #[test]
    fn a_statement_stands_only_under_its_own_keys() {
        let keys = Keypair::generate_ed25519();
        let mut store = MergedStore::new(SwarmName::default());
        let value = encoded(&Statement::Announcement(announcement(&keys, 1)), &keys);
        let wrong = SegmentKey::directory();
        assert!(matches!(store.put(wrong, &value, START), Err(PutError::WrongKey)));
        assert!(store.put(key_of(&keys), &value[1..], START).is_err());
        assert!(store.is_empty());
    }

    #[test]
    fn a_crowded_key_answers_with_fair_samples_that_fit() {
        let all: Vec<Keypair> = (0..120).map(|_| Keypair::generate_ed25519()).collect();
        let mut store = MergedStore::new(SwarmName::default());
        for keys in &all {
            let value = encoded(&Statement::Announcement(announcement(keys, 1)), keys);
            store.put(key_of(keys), &value, START).unwrap();
        }
        let mut rng = StdRng::seed_from_u64(2);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..40 {
            let record = store.get(key_of(&all[0]), START, &mut rng).unwrap();
            assert_eq!(record.total, 120);
            assert!((1..120).contains(&record.entries.len()));
            assert!(record.encode().is_ok());
            for entry in record.entries {
                seen.insert(entry.signed.verify(&SwarmName::default()).unwrap().peer());
            }
        }
        assert_eq!(seen.len(), 120, "some server is never found");
    }

    #[test]
    fn the_directory_keeps_a_few_voices_for_each_model() {
        let mut store = MergedStore::new(SwarmName::default());
        for second in 0..20u64 {
            let keys = Keypair::generate_ed25519();
            let value = encoded(&Statement::Directory(directory_entry(&keys, 1)), &keys);
            let now = START + Duration::from_secs(second);
            store.put(SegmentKey::directory(), &value, now).unwrap();
        }
        assert_eq!(store.len(), MAX_VOICES_PER_MODEL);
    }
}
