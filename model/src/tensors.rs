//! All tensors of a checkpoint: found by name in one file or many shards, read by byte range, converted on the way.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use blake3::Hasher;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;
use serde::Deserialize;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::ElementType;

use crate::error::ModelError;
use crate::kernels::{Element, GgmlRows, QuantMatrix};
use crate::source::{ByteSource, Files};
use crate::tensor_file::{TensorEntry, read_header};
use crate::weights::{Floats, Matrix, Values};

/// The file of an unsharded checkpoint.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The file that says which shard holds which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The longest index read.
const MAX_INDEX: u64 = 64 << 20;
/// The most shards: well above the largest known checkpoint (about 200).
const MAX_SHARDS: usize = 4096;

/// Where every tensor of a checkpoint lies.
#[derive(Default)]
pub(crate) struct Tensors {
    shards: Vec<Shard>,
    entries: HashMap<String, (usize, TensorEntry)>,
}

/// A matrix `(outputs, inner)` in a checkpoint, and the format it is wanted in.
pub(crate) struct StoredMatrix<'a> {
    pub(crate) tensors: &'a Tensors,
    pub(crate) name: &'a str,
    pub(crate) outputs: usize,
    pub(crate) inner: usize,
    pub(crate) format: WeightFormat,
}

impl StoredMatrix<'_> {
    /// See [`Tensors::matrix`].
    pub(crate) fn load(&self, digest: &mut Hasher) -> Result<Matrix, ModelError> {
        self.tensors.matrix(self.name, (self.outputs, self.inner), self.format, digest)
    }

    /// The matrix in ggml's bytes if its format quantises; the digest is that of [`StoredMatrix::load`].
    pub(crate) fn ggml(&self, digest: &mut Hasher) -> Result<Option<GgmlRows>, ModelError> {
        let shape = (self.outputs, self.inner);
        self.tensors.check_shape(self.name, &[self.outputs, self.inner])?;
        match self.tensors.element_of(self.name)? {
            ElementType::F32 => self.tensors.ggml::<f32>(self.name, shape, self.format, digest),
            ElementType::F16 => self.tensors.ggml::<f16>(self.name, shape, self.format, digest),
            ElementType::Bf16 => self.tensors.ggml::<bf16>(self.name, shape, self.format, digest),
        }
    }
}

struct Shard {
    label: String,
    source: Box<dyn ByteSource>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Tensors {
    /// Reads the headers of the checkpoint's safetensors files.
    pub(crate) fn open(files: &Files) -> Result<Self, ModelError> {
        let names = match files.read_if_there(INDEX, MAX_INDEX)? {
            None => vec![SINGLE.to_string()],
            Some(index) => shard_names(&files.label(INDEX), &index)?,
        };
        let mut tensors = Self::default();
        for name in names {
            tensors.add_shard(files.label(&name), files.open(&name)?)?;
        }
        Ok(tensors)
    }

    pub(crate) fn add_shard(&mut self, label: String, source: Box<dyn ByteSource>) -> Result<(), ModelError> {
        let index = self.shards.len();
        for (name, entry) in read_header(source.as_ref(), &label)? {
            if self.entries.insert(name.clone(), (index, entry)).is_some() {
                return Err(ModelError::file(label, format!("tensor {name} is in another file too")));
            }
        }
        self.shards.push(Shard { label, source });
        Ok(())
    }

    /// The stored type of a tensor.
    pub(crate) fn element_of(&self, name: &str) -> Result<ElementType, ModelError> {
        match self.entry(name)?.1.dtype {
            Dtype::F32 => Ok(ElementType::F32),
            Dtype::F16 => Ok(ElementType::F16),
            Dtype::BF16 => Ok(ElementType::Bf16),
            other => Err(ModelError::WrongType { tensor: name.to_string(), found: other.to_string() }),
        }
    }

    /// Where a tensor lies in its file, in bytes.
    pub(crate) fn place(&self, name: &str) -> Option<Range<u64>> {
        self.entries.get(name).map(|(_, entry)| entry.bytes.clone())
    }

    /// Bytes of a tensor in its file; 0 if there is none.
    pub(crate) fn stored_bytes(&self, name: &str) -> u64 {
        self.place(name).map_or(0, |bytes| bytes.end - bytes.start)
    }

    /// The matrix `(outputs, inner)` in `format`: where it is stored so already, it stays in the mapped file. Its name, type,
    /// shape and bytes go to `digest`; of a quantised matrix the bytes after quantising, of others those stored.
    pub(crate) fn matrix(
        &self,
        name: &str,
        (outputs, inner): (usize, usize),
        format: WeightFormat,
        digest: &mut Hasher,
    ) -> Result<Matrix, ModelError> {
        self.check_shape(name, &[outputs, inner])?;
        let stored = self.element_of(name)?;
        let values = match format {
            WeightFormat::F32 => Values::F32(self.floats(name, digest)?),
            WeightFormat::F16 => Values::F16(self.floats(name, digest)?),
            WeightFormat::Bf16 => Values::Bf16(self.floats(name, digest)?),
            _ => Values::Quantised(match stored {
                ElementType::F32 => self.quantised::<f32>(name, (outputs, inner), format, digest)?,
                ElementType::F16 => self.quantised::<f16>(name, (outputs, inner), format, digest)?,
                ElementType::Bf16 => self.quantised::<bf16>(name, (outputs, inner), format, digest)?,
            }),
        };
        Ok(Matrix { outputs, inner, values })
    }

    /// A vector of `width` elements as f32, hashed as stored.
    pub(crate) fn vector(&self, name: &str, width: usize, digest: &mut Hasher) -> Result<Tensor, ModelError> {
        self.check_shape(name, &[width])?;
        let values = self.floats::<f32>(name, digest)?;
        Ok(Tensor::from_slice(values.as_slice(), width, &Device::Cpu)?)
    }

    fn quantised<E: Element>(
        &self,
        name: &str,
        (outputs, inner): (usize, usize),
        format: WeightFormat,
        digest: &mut Hasher,
    ) -> Result<QuantMatrix, ModelError> {
        hash_header(digest, name, format.name(), &[outputs, inner]);
        let stored = self.stored::<E>(name)?;
        QuantMatrix::quantise(format, stored.as_slice(), inner, &mut |bytes| {
            digest.update(bytes);
        })
    }

    /// The quantised matrix in ggml's bytes, hashed as [`Tensors::matrix`] does; `None` if `format` quantises nothing.
    fn ggml<E: Element>(
        &self,
        name: &str,
        (outputs, inner): (usize, usize),
        format: WeightFormat,
        digest: &mut Hasher,
    ) -> Result<Option<GgmlRows>, ModelError> {
        let stored = self.stored::<E>(name)?;
        let rows = GgmlRows::quantise(format, stored.as_slice(), inner)?;
        if let Some(rows) = &rows {
            hash_header(digest, name, format.name(), &[outputs, inner]);
            digest.update(&rows.bytes);
        }
        Ok(rows)
    }

    /// All elements of a tensor, rounded if they are stored in another type.
    fn floats<To: Element>(&self, name: &str, digest: &mut Hasher) -> Result<Floats<To>, ModelError> {
        match self.element_of(name)? {
            ElementType::F32 => Ok(self.hashed::<f32>(name, digest)?.convert()),
            ElementType::F16 => Ok(self.hashed::<f16>(name, digest)?.convert()),
            ElementType::Bf16 => Ok(self.hashed::<bf16>(name, digest)?.convert()),
        }
    }

    fn hashed<E: Element>(&self, name: &str, digest: &mut Hasher) -> Result<Floats<E>, ModelError> {
        hash_header(digest, name, E::NAME, &self.entry(name)?.1.shape);
        let stored = self.stored::<E>(name)?;
        // On the threads of the pool that this is called in.
        digest.update_rayon(bytemuck::cast_slice(stored.as_slice()));
        Ok(stored)
    }

    /// The stored elements: in place, or read where they cannot be had so. The entry's bytes lie within the file, so a lying
    /// header cannot make this allocate more than the file's length.
    fn stored<E: Element>(&self, name: &str) -> Result<Floats<E>, ModelError> {
        let (shard, entry) = self.entry(name)?;
        if let Some(floats) = shard.source.in_place(entry.bytes.clone()).and_then(Floats::in_place) {
            return Ok(floats);
        }
        let bytes = (entry.bytes.end - entry.bytes.start) as usize;
        let mut values = vec![E::zeroed(); bytes / size_of::<E>()];
        let read = shard.source.read_at(entry.bytes.start, bytemuck::cast_slice_mut(&mut values));
        read.map_err(|error| ModelError::io(shard.label.clone(), error))?;
        Ok(Floats::owned(values))
    }

    fn entry(&self, name: &str) -> Result<(&Shard, &TensorEntry), ModelError> {
        let found = self.entries.get(name).and_then(|(shard, entry)| Some((self.shards.get(*shard)?, entry)));
        found.ok_or_else(|| ModelError::MissingTensor { tensor: name.to_string() })
    }

    fn check_shape(&self, name: &str, expected: &[usize]) -> Result<(), ModelError> {
        let found = &self.entry(name)?.1.shape;
        if found == expected {
            return Ok(());
        }
        Err(ModelError::WrongShape { tensor: name.to_string(), expected: expected.to_vec(), found: found.clone() })
    }
}

/// Unambiguous bytes for a tensor's name, type and shape.
fn hash_header(digest: &mut Hasher, name: &str, stored: &str, shape: &[usize]) {
    digest.update(format!("{name} {stored} {shape:?}\n").as_bytes());
}

/// The distinct shards of an index, each a plain file name.
fn shard_names(label: &str, index: &[u8]) -> Result<Vec<String>, ModelError> {
    let index: Index = serde_json::from_slice(index).map_err(|error| ModelError::file(label, error))?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    let plain = |name: &String| name.ends_with(".safetensors") && !name.contains(['/', '\\', '\0', ':']);
    if let Some(odd) = names.iter().find(|name| !plain(name)) {
        return Err(ModelError::file(label, format!("\"{odd}\" is no name of a shard beside it")));
    }
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(ModelError::file(label, format!("it names {} shards", names.len())));
    }
    Ok(names)
}
