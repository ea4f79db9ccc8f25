//! The bytes of a GGUF file.

/// Where tensors begin: at multiples of this.
const ALIGNMENT: usize = 32;
const VERSION: u32 = 3;

/// A value of the metadata.
#[derive(Debug, Clone)]
pub enum GgufValue {
    /// Type 4.
    U32(u32),
    /// Type 2.
    U16(u16),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7.
    Bool(bool),
    /// Type 8.
    Text(String),
    /// Type 9 of type 7.
    Bools(Vec<bool>),
    /// Type 9 of type 8.
    Texts(Vec<String>),
    /// Type 9 of type 5.
    I32s(Vec<i32>),
    /// Type 9 of type 6.
    F32s(Vec<f32>),
}

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// The slowest dimension first.
    pub shape: Vec<usize>,
    /// ggml's number of its type.
    pub kind: u32,
    /// Its bytes in that type.
    pub bytes: Vec<u8>,
}

/// A file to write.
#[derive(Debug, Clone, Default)]
pub struct GgufFile {
    /// Keys and values, in order.
    pub metadata: Vec<(String, GgufValue)>,
    /// The tensors, in order.
    pub tensors: Vec<GgufTensor>,
}

impl GgufFile {
    /// Adds an entry to the metadata.
    pub fn put(&mut self, key: impl Into<String>, value: GgufValue) {
        self.metadata.push((key.into(), value));
    }

    /// The whole file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut bytes, key);
            value.write(&mut bytes);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            text(&mut bytes, &tensor.name);
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|width| bytes.extend((*width as u64).to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend((offset as u64).to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(ALIGNMENT);
        }
        for tensor in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend_from_slice(&tensor.bytes);
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }
}

impl GgufValue {
    fn write(&self, bytes: &mut Vec<u8>) {
        let mut kind = |number: u32| bytes.extend(number.to_le_bytes());
        match self {
            Self::U16(value) => {
                kind(2);
                bytes.extend(value.to_le_bytes());
            }
            Self::U32(value) => {
                kind(4);
                bytes.extend(value.to_le_bytes());
            }
            Self::I32(value) => {
                kind(5);
                bytes.extend(value.to_le_bytes());
            }
            Self::F32(value) => {
                kind(6);
                bytes.extend(value.to_le_bytes());
            }
            Self::Bool(value) => {
                kind(7);
                bytes.push((*value).into());
            }
            Self::Text(value) => {
                kind(8);
                text(bytes, value);
            }
            Self::Bools(values) => {
                list(bytes, 7, values.len());
                bytes.extend(values.iter().map(|value| u8::from(*value)));
            }
            Self::Texts(values) => {
                list(bytes, 8, values.len());
                values.iter().for_each(|value| text(bytes, value));
            }
            Self::I32s(values) => {
                list(bytes, 5, values.len());
                values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            }
            Self::F32s(values) => {
                list(bytes, 6, values.len());
                values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            }
        }
    }
}

fn list(bytes: &mut Vec<u8>, kind: u32, count: usize) {
    bytes.extend(9u32.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend((count as u64).to_le_bytes());
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
