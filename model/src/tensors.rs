//! All tensors of a checkpoint: found by name in one file or many shards, read by byte range, converted on the way.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use blake3::Hasher;
use candle_core::{Device, Tensor, WithDType};
use half::{bf16, f16};
use safetensors::Dtype;
use serde::Deserialize;
use swarm_protocol::model_id::WeightFormat;

use crate::error::ModelError;
use crate::kernels::Element;
use crate::source::{ByteSource, Files};
use crate::tensor_file::{TensorEntry, read_header};

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

    /// The stored type of a tensor as a weight format.
    pub(crate) fn format_of(&self, name: &str) -> Result<WeightFormat, ModelError> {
        match self.entry(name)?.1.dtype {
            Dtype::F32 => Ok(WeightFormat::F32),
            Dtype::F16 => Ok(WeightFormat::F16),
            Dtype::BF16 => Ok(WeightFormat::Bf16),
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

    /// Reads one tensor of the given shape as `format`. Its name, type, shape and stored bytes go to `digest`.
    pub(crate) fn load(
        &self,
        name: &str,
        shape: &[usize],
        format: WeightFormat,
        digest: &mut Hasher,
    ) -> Result<Tensor, ModelError> {
        match format {
            WeightFormat::F32 => self.load_as::<f32>(name, shape, digest),
            WeightFormat::F16 => self.load_as::<f16>(name, shape, digest),
            WeightFormat::Bf16 => self.load_as::<bf16>(name, shape, digest),
        }
    }

    fn load_as<To: Element>(&self, name: &str, shape: &[usize], digest: &mut Hasher) -> Result<Tensor, ModelError> {
        let stored = self.format_of(name)?;
        self.check_shape(name, shape)?;
        hash_header(digest, name, stored, shape);
        let values = match stored {
            WeightFormat::F32 => convert::<f32, To>(self.read(name, digest)?),
            WeightFormat::F16 => convert::<f16, To>(self.read(name, digest)?),
            WeightFormat::Bf16 => convert::<bf16, To>(self.read(name, digest)?),
        };
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// The stored elements. The entry's bytes lie within the file, so a lying header cannot make this allocate more
    /// than the file's length.
    fn read<E: Element>(&self, name: &str, digest: &mut Hasher) -> Result<Vec<E>, ModelError> {
        let (shard, entry) = self.entry(name)?;
        let bytes = (entry.bytes.end - entry.bytes.start) as usize;
        let mut values = vec![E::zeroed(); bytes / size_of::<E>()];
        let buffer: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        let read = shard.source.read_at(entry.bytes.start, buffer);
        read.map_err(|error| ModelError::io(shard.label.clone(), error))?;
        digest.update(buffer);
        Ok(values)
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

/// Unambiguous bytes for a tensor's name, stored type and shape.
fn hash_header(digest: &mut Hasher, name: &str, stored: WeightFormat, shape: &[usize]) {
    digest.update(format!("{name} {stored} {shape:?}\n").as_bytes());
}

/// The same vector where the types agree, rounded element by element where not.
fn convert<From: Element, To: Element>(values: Vec<From>) -> Vec<To> {
    if <From as WithDType>::DTYPE == <To as WithDType>::DTYPE {
        // One and the same type: this moves the vector.
        return bytemuck::allocation::try_cast_vec(values).unwrap_or_else(|(_, values)| round(&values));
    }
    round(&values)
}

fn round<From: Element, To: Element>(values: &[From]) -> Vec<To> {
    values.iter().map(|value| To::round(value.widen())).collect()
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
