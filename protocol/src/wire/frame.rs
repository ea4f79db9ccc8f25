//! One frame: `header length (u32, little-endian) | header (postcard) | payload`. The payload's length follows from the
//! header, so it is bounded before a byte of it is read.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::rows::RowsError;

/// Bytes of the length that precedes a header.
pub const PREFIX_BYTES: usize = 4;

/// The largest header: a description of a server with a digest for each of 512 blocks is 17 KiB.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// A message that may be followed by raw bytes.
pub trait Payload {
    /// How many bytes follow the message, by what it says itself.
    ///
    /// # Errors
    /// [`RowsError`] if they are more than any honest peer sends.
    fn payload_bytes(&self) -> Result<usize, RowsError>;
}

/// Why bytes are no frame.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The announced header is longer than any honest one.
    #[error("a header of {0} bytes is over the limit of {MAX_HEADER_BYTES}")]
    HeaderTooLong(usize),
    /// The header is no message of this version.
    #[error("the header does not decode: {0}")]
    Malformed(#[from] postcard::Error),
    /// Bytes are left over behind the message in its header.
    #[error("the header holds {0} bytes too many")]
    Trailing(usize),
    /// The rows are out of bounds.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The payload is larger than this reader takes.
    #[error("a payload of {bytes} bytes is over this peer's limit of {limit}")]
    PayloadTooLong {
        /// What the header announces.
        bytes: usize,
        /// What the reader takes.
        limit: usize,
    },
    /// The writer's payload is not what its header says.
    #[error("the payload has {found} bytes, its header says {expected}")]
    PayloadMismatch {
        /// By the header.
        expected: usize,
        /// Given.
        found: usize,
    },
}

/// A decoded header and the bytes that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameHead<M> {
    /// The message.
    pub message: M,
    /// Length of the payload.
    pub payload_bytes: usize,
}

/// The bytes of a whole frame, to be written at once.
///
/// # Errors
/// [`FrameError`] if the message is too long or the payload is not what it announces.
pub fn encode<M: Serialize + Payload>(message: &M, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let expected = message.payload_bytes()?;
    if expected != payload.len() {
        return Err(FrameError::PayloadMismatch { expected, found: payload.len() });
    }
    /// Room for the header of a step; longer ones grow the buffer once.
    const USUAL_HEADER_BYTES: usize = 64;
    let mut frame = Vec::with_capacity(PREFIX_BYTES + USUAL_HEADER_BYTES + payload.len());
    frame.extend_from_slice(&[0; PREFIX_BYTES]);
    frame = postcard::to_extend(message, frame)?;
    let header_bytes = frame.len() - PREFIX_BYTES;
    if header_bytes > MAX_HEADER_BYTES {
        return Err(FrameError::HeaderTooLong(header_bytes));
    }
    frame[..PREFIX_BYTES].copy_from_slice(&(header_bytes as u32).to_le_bytes());
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// The message in a header whose bytes were read after its length was checked.
///
/// # Errors
/// [`FrameError`] if the bytes are no message, or announce a payload over `payload_limit`.
pub fn decode<M: DeserializeOwned + Payload>(header: &[u8], payload_limit: usize) -> Result<FrameHead<M>, FrameError> {
    if header.len() > MAX_HEADER_BYTES {
        return Err(FrameError::HeaderTooLong(header.len()));
    }
    let (message, rest) = postcard::take_from_bytes::<M>(header)?;
    if !rest.is_empty() {
        return Err(FrameError::Trailing(rest.len()));
    }
    let payload_bytes = message.payload_bytes()?;
    if payload_bytes > payload_limit {
        return Err(FrameError::PayloadTooLong { bytes: payload_bytes, limit: payload_limit });
    }
    Ok(FrameHead { message, payload_bytes })
}
