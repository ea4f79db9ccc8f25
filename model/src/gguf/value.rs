//! The values of a header's metadata.

use std::ops::Range;

use super::cursor::Cursor;
use crate::error::ModelError;

/// Arrays within arrays: known files have none.
const MAX_DEPTH: u32 = 4;

/// The type of a value; the numbers are the format's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number(Number),
    Bool,
    String,
    Array,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
}

/// One value. Arrays may be large and are seldom wanted: they stay in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// Where an array's elements lie.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Array {
    pub(super) kind: Kind,
    pub(super) count: u64,
    pub(super) bytes: Range<u64>,
}

impl Kind {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, ModelError> {
        Ok(match cursor.u32()? {
            0 => Self::Number(Number::U8),
            1 => Self::Number(Number::I8),
            2 => Self::Number(Number::U16),
            3 => Self::Number(Number::I16),
            4 => Self::Number(Number::U32),
            5 => Self::Number(Number::I32),
            6 => Self::Number(Number::F32),
            7 => Self::Bool,
            8 => Self::String,
            9 => Self::Array,
            10 => Self::Number(Number::U64),
            11 => Self::Number(Number::I64),
            12 => Self::Number(Number::F64),
            other => return Err(cursor.bad(format!("its metadata has a value of type {other}, which is not known"))),
        })
    }

    /// Bytes of one value, if all of this type have as many.
    fn bytes(self) -> Option<u64> {
        match self {
            Self::Number(Number::U8 | Number::I8) | Self::Bool => Some(1),
            Self::Number(Number::U16 | Number::I16) => Some(2),
            Self::Number(Number::U32 | Number::I32 | Number::F32) => Some(4),
            Self::Number(Number::U64 | Number::I64 | Number::F64) => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

impl Value {
    /// A value behind its type.
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, ModelError> {
        let kind = Kind::read(cursor)?;
        Self::read_as(cursor, kind)
    }

    fn read_as(cursor: &mut Cursor<'_>, kind: Kind) -> Result<Self, ModelError> {
        Ok(match kind {
            Kind::Number(number) => number.read(cursor)?,
            Kind::Bool => Self::Bool(cursor.bytes::<1>()? != [0]),
            Kind::String => Self::String(cursor.string()?),
            Kind::Array => Self::Array(Array::skip(cursor, 1)?),
        })
    }

    /// As a whole number that is not negative.
    pub(super) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(*value),
            Self::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    pub(super) fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Unsigned(value) => Some(*value as f64),
            Self::Signed(value) => Some(*value as f64),
            _ => None,
        }
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(value) => Some(value),
            _ => None,
        }
    }
}

impl Number {
    fn read(self, cursor: &mut Cursor<'_>) -> Result<Value, ModelError> {
        Ok(match self {
            Self::U8 => Value::Unsigned(u8::from_le_bytes(cursor.bytes()?).into()),
            Self::I8 => Value::Signed(i8::from_le_bytes(cursor.bytes()?).into()),
            Self::U16 => Value::Unsigned(u16::from_le_bytes(cursor.bytes()?).into()),
            Self::I16 => Value::Signed(i16::from_le_bytes(cursor.bytes()?).into()),
            Self::U32 => Value::Unsigned(cursor.u32()?.into()),
            Self::I32 => Value::Signed(i32::from_le_bytes(cursor.bytes()?).into()),
            Self::F32 => Value::Float(f32::from_le_bytes(cursor.bytes()?).into()),
            Self::U64 => Value::Unsigned(cursor.u64()?),
            Self::I64 => Value::Signed(i64::from_le_bytes(cursor.bytes()?)),
            Self::F64 => Value::Float(f64::from_le_bytes(cursor.bytes()?)),
        })
    }
}

impl Array {
    /// An array behind its type: only its end is looked for.
    fn skip(cursor: &mut Cursor<'_>, depth: u32) -> Result<Self, ModelError> {
        let kind = Kind::read(cursor)?;
        let count = cursor.u64()?;
        let start = cursor.position();
        match (kind, kind.bytes()) {
            (_, Some(bytes)) => cursor.skip(count.saturating_mul(bytes))?,
            (Kind::Array, _) if depth < MAX_DEPTH => {
                for _ in 0..count {
                    Self::skip(cursor, depth + 1)?;
                }
            }
            (Kind::Array, _) => return Err(cursor.bad("its metadata has arrays within arrays, too deep to be sound")),
            // Each string takes at least its length's bytes, so that a lying count soon meets the file's end.
            _ => {
                for _ in 0..count {
                    cursor.skip_string()?;
                }
            }
        }
        Ok(Self { kind, count, bytes: start..cursor.position() })
    }

    /// The elements, of an array without arrays. `cursor` stands at [`Array::bytes`].
    pub(super) fn read(&self, cursor: &mut Cursor<'_>) -> Result<Vec<Value>, ModelError> {
        (0..self.count).map(|_| Value::read_as(cursor, self.kind)).collect()
    }
}
