//! The record that answers a look-up: a sample of the statements under one key.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Signed;

/// The largest answer, in bytes: below the DHT's packet limit of 16 KiB with room for its framing and peer lists.
pub const MAX_RECORD_BYTES: usize = 12 * 1024;

/// One statement and how long it still holds. Seconds left, not a clock reading: clocks need not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Seconds until the holder forgets it.
    pub seconds_left: u32,
    /// The statement with its signature.
    pub signed: Signed,
}

/// A random sample of what a holder knows under one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedRecord {
    /// How many statements the sample was drawn from.
    pub total: u32,
    /// The sample.
    pub entries: Vec<Entry>,
}

/// A record that cannot be read.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Larger than any honest record.
    #[error("a record of {0} bytes is over the limit of {MAX_RECORD_BYTES}")]
    TooLong(usize),
    /// Not a record of this version.
    #[error("the record does not decode: {0}")]
    Malformed(#[from] postcard::Error),
}

impl MergedRecord {
    /// The record's bytes.
    ///
    /// # Errors
    /// [`RecordError`] if it is too large to travel.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let bytes = postcard::to_allocvec(self)?;
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLong(bytes.len()));
        }
        Ok(bytes)
    }

    /// The record that `bytes` hold.
    ///
    /// # Errors
    /// [`RecordError`] if they hold none.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLong(bytes.len()));
        }
        Ok(postcard::from_bytes(bytes)?)
    }
}
