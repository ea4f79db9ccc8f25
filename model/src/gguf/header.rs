//! The header of one GGUF file: metadata, and where each tensor lies. Headers come from strangers; nothing in them is believed
//! before it is checked against the file's length.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::cursor::Cursor;
use super::types::{READ, block, stored_type};
use super::value::{Array, Kind, Value};
use crate::error::ModelError;
use crate::source::ByteSource;
use crate::stored_type::StoredType;

const MAGIC: [u8; 4] = *b"GGUF";
/// Versions read: 2 and 3 differ in byte order alone, which is little-endian here.
const VERSIONS: Range<u32> = 2..4;
/// The most metadata entries; known files have some 50.
const MAX_ENTRIES: u64 = 1 << 16;
/// The most tensors of one file; the largest known models have some 2000.
const MAX_TENSORS: u64 = 1 << 17;
/// The longest name of an entry, as the format has it.
const MAX_KEY: u64 = 65_535;
/// The longest name of a tensor; ggml's own limit is 64.
const MAX_NAME: u64 = 256;
/// The most dimensions, as ggml has it.
const MAX_DIMENSIONS: u32 = 4;
/// Where tensors begin, if the file does not say: at a multiple of this.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Alignments believed: floats lie straight, and the header's end is found by rounding up.
const ALIGNMENTS: Range<u64> = 8..(1 << 20) + 1;
const ALIGNMENT: &str = "general.alignment";

/// What a file says of itself.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: Vec<Tensor>,
}

/// A tensor as the file lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) stored: StoredType,
    /// The slowest dimension first: `(outputs, inner)` of a matrix.
    pub(super) shape: Vec<usize>,
    /// Byte offsets from the start of the file; they lie within it.
    pub(super) bytes: Range<u64>,
}

impl Header {
    /// Reads and checks the header of `source`; `file` is its name for error messages.
    pub(super) fn read(source: &dyn ByteSource, file: &str) -> Result<Self, ModelError> {
        let mut cursor = Cursor::new(source, file, 0, None);
        if cursor.bytes::<4>()? != MAGIC {
            return Err(cursor.bad("it is no GGUF file: it does not begin with \"GGUF\""));
        }
        check_version(&mut cursor)?;
        let (tensors, entries) = (cursor.u64()?, cursor.u64()?);
        if tensors > MAX_TENSORS || entries > MAX_ENTRIES {
            return Err(cursor.bad(format!("its header claims {tensors} tensors and {entries} entries of metadata")));
        }
        let metadata = read_metadata(&mut cursor, entries)?;
        let listed = read_listed(&mut cursor, tensors)?;
        let alignment = alignment(&cursor, &metadata)?;
        let start = cursor.position().next_multiple_of(alignment);
        let place = |listed| place(&cursor, listed, start, alignment, source.len());
        let tensors = listed.into_iter().map(place).collect::<Result<Vec<_>, _>>()?;
        check_apart(&cursor, &tensors)?;
        Ok(Self { metadata, tensors })
    }
}

fn check_version(cursor: &mut Cursor<'_>) -> Result<(), ModelError> {
    let version = cursor.u32()?;
    if VERSIONS.contains(&version) {
        return Ok(());
    }
    Err(match VERSIONS.contains(&version.swap_bytes()) {
        true => cursor.bad("it is big-endian; use the little-endian file"),
        false => cursor.bad(format!("it is of version {version}; versions 2 and 3 are read")),
    })
}

fn read_metadata(cursor: &mut Cursor<'_>, entries: u64) -> Result<BTreeMap<String, Value>, ModelError> {
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = cursor.short_string(MAX_KEY)?;
        let value = Value::read(cursor)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(cursor.bad(format!("its metadata has {key} twice")));
        }
    }
    Ok(metadata)
}

/// A tensor whose place is not checked yet.
struct Listed {
    name: String,
    shape: Vec<u64>,
    stored: StoredType,
    offset: u64,
}

fn read_listed(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<Listed>, ModelError> {
    let mut names = HashSet::new();
    let mut listed = Vec::new();
    for _ in 0..count {
        let name = cursor.short_string(MAX_NAME)?;
        if !names.insert(name.clone()) {
            return Err(cursor.bad(format!("it lists tensor {name} twice")));
        }
        let dimensions = cursor.u32()?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(cursor.bad(format!("tensor {name} has {dimensions} dimensions")));
        }
        let mut shape = (0..dimensions).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>()?;
        shape.reverse();
        let stored = stored_type(cursor.u32()?).map_err(|found| {
            cursor.bad(format!("tensor {name} is of type {found}; read are {READ}: use a file of those types"))
        })?;
        listed.push(Listed { name, shape, stored, offset: cursor.u64()? });
    }
    Ok(listed)
}

fn alignment(cursor: &Cursor<'_>, metadata: &BTreeMap<String, Value>) -> Result<u64, ModelError> {
    let Some(value) = metadata.get(ALIGNMENT) else { return Ok(DEFAULT_ALIGNMENT) };
    let sound = value.as_u64().filter(|value| ALIGNMENTS.contains(value) && value.is_power_of_two());
    sound.ok_or_else(|| cursor.bad(format!("its {ALIGNMENT} is {value:?}")))
}

/// The tensor at its place behind `start`.
fn place(cursor: &Cursor<'_>, listed: Listed, start: u64, alignment: u64, length: u64) -> Result<Tensor, ModelError> {
    let Listed { name, shape, stored, offset } = listed;
    let (elements, bytes) = block(stored);
    let total = shape.iter().try_fold(1u64, |total, width| total.checked_mul(*width)).filter(|total| *total > 0);
    let whole = shape.last().is_some_and(|width| width.is_multiple_of(elements));
    let size = total.filter(|_| whole).and_then(|total| (total / elements).checked_mul(bytes));
    let Some(size) = size else {
        return Err(cursor.bad(format!("tensor {name} of type {stored} has the impossible shape {shape:?}")));
    };
    if !offset.is_multiple_of(alignment) {
        return Err(cursor.bad(format!("tensor {name} lies at offset {offset}, no multiple of {alignment}")));
    }
    let from = start.checked_add(offset);
    let range = from.and_then(|from| Some(from..from.checked_add(size)?));
    match range {
        Some(bytes) if bytes.end <= length => {
            // No dimension is larger than the file.
            let shape = shape.into_iter().map(|width| width as usize).collect();
            Ok(Tensor { name, stored, shape, bytes })
        }
        Some(bytes) => Err(ModelError::Truncated {
            file: cursor.file().to_string(),
            tensor: name,
            needed: bytes.end,
            found: length,
        }),
        None => Err(cursor.bad(format!("tensor {name} lies at offset {offset}, far behind the file's end"))),
    }
}

/// That no byte belongs to two tensors.
fn check_apart(cursor: &Cursor<'_>, tensors: &[Tensor]) -> Result<(), ModelError> {
    let mut sorted: Vec<&Tensor> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| tensor.bytes.start);
    let pairs = sorted.iter().zip(sorted.iter().skip(1));
    match pairs.into_iter().find(|(one, next)| next.bytes.start < one.bytes.end) {
        None => Ok(()),
        Some((one, next)) => Err(cursor.bad(format!("tensors {} and {} overlap", one.name, next.name))),
    }
}

/// What is read of a file after its header.
pub(super) struct Arrays<'a> {
    pub(super) source: &'a dyn ByteSource,
    pub(super) file: &'a str,
}

impl Arrays<'_> {
    /// The elements of an array.
    pub(super) fn read(&self, array: &Array) -> Result<Vec<Value>, ModelError> {
        if array.kind == Kind::Array {
            return Err(ModelError::file(self.file, "its metadata has an array of arrays where none is known"));
        }
        array.read(&mut Cursor::new(self.source, self.file, array.bytes.start, Some(array.bytes.end)))
    }
}
