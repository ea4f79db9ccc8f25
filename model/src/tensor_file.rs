//! The header of one safetensors file: where each tensor lies. Headers come from strangers; nothing in them is believed
//! before it is checked against the file's length.

use std::ops::Range;

use safetensors::tensor::Metadata;

use crate::error::ModelError;
use crate::source::ByteSource;
use crate::stored_type::StoredType;

/// The longest header read: the deepest known checkpoints have headers of a few hundred KiB.
const MAX_HEADER: u64 = 32 << 20;
/// The header's length, little-endian, at the start of the file.
const LENGTH_BYTES: u64 = 8;

/// A tensor's type, shape and place.
#[derive(Debug, Clone)]
pub(crate) struct TensorEntry {
    pub(crate) stored: StoredType,
    pub(crate) shape: Vec<usize>,
    /// Byte offsets from the start of the file; they lie within it.
    pub(crate) bytes: Range<u64>,
    /// How what is stored differs from the tensor of that name.
    pub(crate) written: Written,
}

impl TensorEntry {
    /// Its own share of the bytes in the file: rows of others may lie between its own.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let bytes = self.bytes.end - self.bytes.start;
        match &self.written {
            Written::Plain | Written::HeadsInterleaved(_) | Written::PlusOne => bytes,
            Written::Every(rows) | Written::Turned(rows) => bytes / rows.step as u64,
            Written::Microscaled(Microscaled { scales, rows, .. }) => {
                (bytes + scales.end - scales.start) / rows.step as u64
            }
        }
    }
}

/// How a file's converter wrote a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// As it is.
    Plain,
    /// Rows belong to so many heads, and of each head those of its second half stand between those of its first: the order
    /// in which the rotary embedding of llama.cpp pairs them.
    HeadsInterleaved(usize),
    /// Every element is larger by one.
    PlusOne,
    /// It is some of the rows; of a vector, some of the elements.
    Every(Rows),
    /// It is some of the columns of a matrix `(inner, outputs)`.
    Turned(Rows),
    /// It is some of the rows of a matrix in MXFP4 whose scales lie elsewhere.
    Microscaled(Microscaled),
}

/// Rows of which others lie between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    /// The first one's number.
    pub(crate) first: usize,
    /// From one to the next; not 0.
    pub(crate) step: usize,
}

/// A matrix in MXFP4: what is stored are elements, two in a byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Microscaled {
    /// The shard that holds the scales, one byte for 32 elements.
    pub(crate) scales_shard: usize,
    /// Where in that one.
    pub(crate) scales: Range<u64>,
    /// Which rows.
    pub(crate) rows: Rows,
}

/// Reads and checks the header of `source`; `file` is its name for error messages.
pub(crate) fn read_header(source: &dyn ByteSource, file: &str) -> Result<Vec<(String, TensorEntry)>, ModelError> {
    let io = |error| ModelError::io(file, error);
    let bad = |reason: &str| ModelError::file(file, reason);
    if source.len() < LENGTH_BYTES {
        return Err(bad("it is too short to be a safetensors file"));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    source.read_at(0, &mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > source.len() - LENGTH_BYTES {
        let reason = format!("its header claims {length} bytes of a file of {}", source.len());
        return Err(bad(&reason));
    }
    let mut header = vec![0; length as usize];
    source.read_at(LENGTH_BYTES, &mut header).map_err(io)?;
    // Deserialising also checks that the tensors follow one another without a hole and fit their shapes.
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| ModelError::file(file, error))?;
    let start = LENGTH_BYTES + length;
    let entries = metadata.tensors().into_iter().map(|(name, info)| {
        let (from, to) = info.data_offsets;
        let entry = TensorEntry {
            stored: info.dtype.into(),
            shape: info.shape.clone(),
            bytes: start.saturating_add(from as u64)..start.saturating_add(to as u64),
            written: Written::Plain,
        };
        (name, entry)
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|(_, entry)| entry.bytes.start);
    match entries.iter().find(|(_, entry)| entry.bytes.end > source.len()) {
        None => Ok(entries),
        Some((tensor, entry)) => Err(ModelError::Truncated {
            file: file.to_string(),
            tensor: tensor.clone(),
            needed: entry.bytes.end,
            found: source.len(),
        }),
    }
}
