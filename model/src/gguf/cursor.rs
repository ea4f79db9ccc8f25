//! Reading a header piece by piece, every size checked against what is left of the file.

use crate::error::ModelError;
use crate::source::ByteSource;

/// Bytes asked for at a time: one round trip where the file is far away brings many values.
const PIECE: u64 = 256 << 10;
/// The longest header read: the largest vocabularies take some 20 MiB.
const MAX_HEADER: u64 = 256 << 20;
/// The longest string read: chat templates have some ten KiB.
const MAX_STRING: u64 = 4 << 20;

/// A place in a file's header.
pub(super) struct Cursor<'a> {
    source: &'a dyn ByteSource,
    /// The file's name for error messages.
    file: &'a str,
    /// Bytes from `start` on.
    piece: Vec<u8>,
    start: u64,
    position: u64,
    end: u64,
}

impl<'a> Cursor<'a> {
    /// At `position` of `source`; nothing at or after `end` is read.
    pub(super) fn new(source: &'a dyn ByteSource, file: &'a str, position: u64, end: Option<u64>) -> Self {
        let end = end.unwrap_or(MAX_HEADER).min(source.len());
        Self { source, file, piece: Vec::new(), start: position, position, end }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn file(&self) -> &str {
        self.file
    }

    /// An error of this file.
    pub(super) fn bad(&self, reason: impl ToString) -> ModelError {
        ModelError::file(self.file, reason)
    }

    /// The next `count` bytes, which are few.
    fn take(&mut self, count: u64) -> Result<&[u8], ModelError> {
        self.check(count)?;
        let held = self.start + self.piece.len() as u64;
        if self.position < self.start || self.position + count > held {
            let length = count.max(PIECE).min(self.end - self.position);
            self.piece.resize(length as usize, 0);
            let read = self.source.read_at(self.position, &mut self.piece);
            read.map_err(|error| ModelError::io(self.file, error))?;
            self.start = self.position;
        }
        let from = (self.position - self.start) as usize;
        self.position += count;
        Ok(&self.piece[from..from + count as usize])
    }

    fn check(&self, count: u64) -> Result<(), ModelError> {
        if count <= self.end - self.position {
            return Ok(());
        }
        let place = self.position;
        let what = if self.end < self.source.len() { "its header is longer than any known" } else { "it is cut short" };
        Err(self.bad(format!("{what}: at byte {place} its header goes on for {count} more")))
    }

    /// Leaves out `count` bytes.
    pub(super) fn skip(&mut self, count: u64) -> Result<(), ModelError> {
        self.check(count)?;
        self.position += count;
        Ok(())
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ModelError> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ModelError> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A string of at most `most` bytes.
    pub(super) fn short_string(&mut self, most: u64) -> Result<String, ModelError> {
        let length = self.string_length()?;
        if length > most {
            return Err(self.bad(format!("at byte {} is a name of {length} bytes; the most is {most}", self.position)));
        }
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.bad("one of its names is no UTF-8"))
    }

    /// A string as it is, with U+FFFD for what is no UTF-8.
    pub(super) fn string(&mut self) -> Result<String, ModelError> {
        let length = self.string_length()?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    pub(super) fn skip_string(&mut self) -> Result<(), ModelError> {
        let length = self.string_length()?;
        self.skip(length)
    }

    fn string_length(&mut self) -> Result<u64, ModelError> {
        let length = self.u64()?;
        if length > MAX_STRING {
            let reason = format!("at byte {} is a string of {length} bytes; the most is {MAX_STRING}", self.position);
            return Err(self.bad(reason));
        }
        Ok(length)
    }
}
