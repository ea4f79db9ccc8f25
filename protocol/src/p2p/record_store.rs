//! The DHT's store: our merged statements behind libp2p's trait.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use tracing::debug;

use crate::announcement::{MergedStore, PutError, SegmentKey};
use crate::swarm_name::SwarmName;

/// Keeps verified statements merged by peer; refuses everything else, so that the sender notices. Provider records are
/// not part of our protocol.
pub(super) struct StatementStore {
    statements: MergedStore,
    start: Instant,
    /// Why the last statement was refused, which the trait's errors cannot say.
    refusal: Option<PutError>,
}

impl StatementStore {
    pub(super) fn new(swarm: SwarmName) -> Self {
        Self { statements: MergedStore::new(swarm), start: Instant::now(), refusal: None }
    }

    /// Why the last statement that was not kept was refused.
    pub(super) fn take_refusal(&mut self) -> Option<PutError> {
        self.refusal.take()
    }

    /// How many statements are kept.
    pub(super) fn len(&self) -> usize {
        self.statements.len()
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

fn segment_key(key: &RecordKey) -> Option<SegmentKey> {
    key.as_ref().try_into().ok().map(SegmentKey)
}

impl RecordStore for StatementStore {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        let record = self.statements.get(segment_key(key)?, self.now(), &mut rand::rng())?;
        let value = record.encode().ok()?;
        Some(Cow::Owned(Record::new(key.clone(), value)))
    }

    fn put(&mut self, record: Record) -> Result<()> {
        let key = segment_key(&record.key).ok_or(Error::ValueTooLarge)?;
        let now = self.now();
        self.statements.put(key, &record.value, now).map_err(|error| {
            debug!(%error, "a statement was refused");
            self.refusal = Some(error);
            // The trait knows no better word for "not acceptable".
            Error::ValueTooLarge
        })
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, _: ProviderRecord) -> Result<()> {
        Err(Error::MaxProvidedKeys)
    }

    fn providers(&self, _: &RecordKey) -> Vec<ProviderRecord> {
        Vec::new()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, _: &RecordKey, _: &PeerId) {}
}
