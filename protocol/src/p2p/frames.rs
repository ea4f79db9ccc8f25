//! Reading and writing frames on a stream.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::streams::BoundStream;
use crate::wire::{FrameError, MAX_HEADER_BYTES, PREFIX_BYTES, Payload, decode, encode};

/// A stream that broke, or a peer that does not keep to the protocol.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The connection is gone.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The stream ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame")]
    Cut,
    /// What came is no frame of this protocol.
    #[error("the peer broke the protocol: {0}")]
    Frame(#[from] FrameError),
}

/// Counts bytes; clones count together.
#[derive(Debug, Clone, Default)]
pub struct ByteCount(Arc<AtomicU64>);

impl ByteCount {
    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What of a frame has been read.
enum Stage<M> {
    Prefix,
    Header,
    Payload(M),
}

/// Reads one frame after another. Dropping a pending [`next`](Self::next) loses nothing: the next call goes on where it
/// stopped.
pub struct FrameReader<M> {
    io: ReadHalf<BoundStream>,
    payload_limit: usize,
    stage: Stage<M>,
    buffer: Vec<u8>,
    filled: usize,
    count: ByteCount,
}

impl<M: DeserializeOwned + Payload> FrameReader<M> {
    pub(super) fn new(io: ReadHalf<BoundStream>, payload_limit: usize) -> Self {
        let count = ByteCount::default();
        Self { io, payload_limit, stage: Stage::Prefix, buffer: vec![0; PREFIX_BYTES], filled: 0, count }
    }

    /// Takes larger or smaller payloads from now on, in bytes.
    pub fn set_payload_limit(&mut self, bytes: usize) {
        self.payload_limit = bytes;
    }

    /// Counts what is read from now on there.
    pub fn count_into(&mut self, count: &ByteCount) {
        self.count = count.clone();
    }

    /// The next message with its payload; `None` when the peer has closed the stream between two frames.
    ///
    /// # Errors
    /// [`StreamError`] if the connection is lost or the peer does not keep to the protocol.
    pub async fn next(&mut self) -> Result<Option<(M, Vec<u8>)>, StreamError> {
        loop {
            while self.filled < self.buffer.len() {
                let read = self.io.read(&mut self.buffer[self.filled..]).await?;
                if read == 0 {
                    let between = matches!(self.stage, Stage::Prefix) && self.filled == 0;
                    return if between { Ok(None) } else { Err(StreamError::Cut) };
                }
                self.filled += read;
            }
            self.count.add(self.filled);
            let bytes = std::mem::take(&mut self.buffer);
            self.filled = 0;
            match std::mem::replace(&mut self.stage, Stage::Prefix) {
                Stage::Prefix => {
                    let header = header_bytes(&bytes)?;
                    (self.stage, self.buffer) = (Stage::Header, vec![0; header]);
                }
                Stage::Header => {
                    let head = decode::<M>(&bytes, self.payload_limit)?;
                    (self.stage, self.buffer) = (Stage::Payload(head.message), vec![0; head.payload_bytes]);
                }
                Stage::Payload(message) => {
                    self.buffer = vec![0; PREFIX_BYTES];
                    return Ok(Some((message, bytes)));
                }
            }
        }
    }
}

fn header_bytes(prefix: &[u8]) -> Result<usize, FrameError> {
    let prefix = prefix.try_into().map_or(0, u32::from_le_bytes) as usize;
    if prefix > MAX_HEADER_BYTES {
        return Err(FrameError::HeaderTooLong(prefix));
    }
    Ok(prefix)
}

/// Writes frames, each with one write.
pub struct FrameWriter<M> {
    io: WriteHalf<BoundStream>,
    message: PhantomData<fn(M)>,
    count: ByteCount,
}

impl<M: Serialize + Payload> FrameWriter<M> {
    pub(super) fn new(io: WriteHalf<BoundStream>) -> Self {
        Self { io, message: PhantomData, count: ByteCount::default() }
    }

    /// Counts what is written from now on there.
    pub fn count_into(&mut self, count: &ByteCount) {
        self.count = count.clone();
    }

    /// Sends a message with the rows it announces.
    ///
    /// # Errors
    /// [`StreamError`] if the connection is lost or the payload is not what the message says.
    pub async fn send(&mut self, message: &M, payload: &[u8]) -> Result<(), StreamError> {
        let frame = encode(message, payload)?;
        self.send_bytes(&frame).await
    }

    /// Sends bytes as they are; for tests of what a peer does with them.
    #[doc(hidden)]
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.io.write_all(bytes).await?;
        self.io.flush().await?;
        self.count.add(bytes.len());
        Ok(())
    }

    /// Ends the stream in this direction.
    ///
    /// # Errors
    /// [`StreamError`] if the connection is lost.
    pub async fn close(&mut self) -> Result<(), StreamError> {
        Ok(self.io.close().await?)
    }
}
