//! All tensors of a checkpoint: found by name in one file or many shards. See [`crate::tensor_read`] for reading them.

use std::collections::{BTreeMap, HashMap};

use blake3::Hasher;
use serde::Deserialize;
use swarm_protocol::model_id::WeightFormat;

use crate::error::ModelError;
use crate::kernels::GgmlRows;
use crate::source::{ByteSource, CheckpointFiles, FileRange, read_if_there};
use crate::stored_type::StoredType;
use crate::tensor_file::{Microscaled, TensorEntry, Written, read_header};
use crate::weights::Matrix;

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
    pub(crate) entries: HashMap<String, (usize, TensorEntry)>,
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

    /// The matrix in floats where it is held in a type that candle does not know; the digest is that of [`StoredMatrix::load`].
    pub(crate) fn dense(&self, digest: &mut Hasher) -> Result<Matrix, ModelError> {
        self.tensors.dense(self.name, (self.outputs, self.inner), self.format, digest)
    }

    /// The matrix in ggml's bytes if it is held in a quantised type that candle knows; the digest is that of [`StoredMatrix::load`].
    pub(crate) fn ggml(&self, digest: &mut Hasher) -> Result<Option<GgmlRows>, ModelError> {
        self.tensors.ggml(self.name, (self.outputs, self.inner), self.format, digest)
    }
}

pub(crate) struct Shard {
    /// Its name within the checkpoint.
    file: String,
    pub(crate) label: String,
    pub(crate) source: Box<dyn ByteSource>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Tensors {
    /// Reads the headers of the checkpoint's safetensors files.
    pub(crate) fn open(files: &dyn CheckpointFiles) -> Result<Self, ModelError> {
        let names = match read_if_there(files, INDEX, MAX_INDEX)? {
            None => vec![SINGLE.to_string()],
            Some(index) => shard_names(&files.label(INDEX), &index)?,
        };
        let mut tensors = Self::default();
        for name in names {
            let source = files.open(&name)?;
            tensors.add_shard(name.clone(), files.label(&name), source)?;
        }
        Ok(tensors)
    }

    /// Reads the header of `file`, whose name for error messages is `label`.
    pub(crate) fn add_shard(
        &mut self,
        file: String,
        label: String,
        source: Box<dyn ByteSource>,
    ) -> Result<(), ModelError> {
        let entries = read_header(source.as_ref(), &label)?;
        self.add_file(file, label, source, entries)
    }

    /// Adds a file whose header is read.
    pub(crate) fn add_file(
        &mut self,
        file: String,
        label: String,
        source: Box<dyn ByteSource>,
        entries: Vec<(String, TensorEntry)>,
    ) -> Result<(), ModelError> {
        let index = self.shards.len();
        for (name, entry) in entries {
            if self.entries.insert(name.clone(), (index, entry)).is_some() {
                return Err(ModelError::file(label, format!("tensor {name} is in another file too")));
            }
        }
        self.shards.push(Shard { file, label, source });
        Ok(())
    }

    /// The stored type of a tensor.
    pub(crate) fn type_of(&self, name: &str) -> Result<StoredType, ModelError> {
        Ok(self.entry(name)?.1.stored)
    }

    /// Whether there is a tensor of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Where a tensor lies: in one place, or its scales in another one; nowhere if there is none.
    pub(crate) fn places(&self, name: &str) -> Vec<FileRange> {
        let Some((shard, entry)) = self.entries.get(name) else { return Vec::new() };
        let scales = match &entry.written {
            Written::Microscaled(Microscaled { scales_shard, scales, .. }) => Some((*scales_shard, scales)),
            _ => None,
        };
        let places = [(*shard, &entry.bytes)].into_iter().chain(scales);
        let file = |shard: usize| self.shards.get(shard).map(|shard| shard.file.clone());
        places.filter_map(|(shard, bytes)| Some(FileRange { file: file(shard)?, bytes: bytes.clone() })).collect()
    }

    /// Bytes of a tensor in its file; 0 if there is none.
    pub(crate) fn stored_bytes(&self, name: &str) -> u64 {
        self.entries.get(name).map_or(0, |(_, entry)| entry.stored_bytes())
    }

    /// The tensor of that name and `shape`, and the shard that holds it.
    pub(crate) fn stack(&self, name: &str, shape: &[usize]) -> Result<(usize, TensorEntry), ModelError> {
        self.check_shape(name, shape)?;
        self.entries.get(name).cloned().ok_or_else(|| ModelError::MissingTensor { tensor: name.to_string() })
    }

    /// Names another tensor.
    pub(crate) fn add(&mut self, name: String, entry: (usize, TensorEntry)) -> Result<(), ModelError> {
        match self.entries.insert(name.clone(), entry) {
            None => Ok(()),
            Some((shard, _)) => {
                let label = self.shards.get(shard).map_or_else(String::new, |shard| shard.label.clone());
                Err(ModelError::file(label, format!("tensor {name} is there twice, in a stack and alone")))
            }
        }
    }

    pub(crate) fn shard(&self, index: usize) -> Option<&Shard> {
        self.shards.get(index)
    }

    /// Every tensor's type, by name.
    pub(crate) fn types(&self) -> BTreeMap<&str, StoredType> {
        self.entries.iter().map(|(name, (_, entry))| (name.as_str(), entry.stored)).collect()
    }

    /// Bytes of a tensor in memory as it is stored; vectors are held in f32. 0 if there is none.
    pub(crate) fn held_bytes(&self, name: &str) -> u64 {
        match self.entries.get(name) {
            Some((_, entry)) if entry.shape.len() == 1 => entry.shape[0] as u64 * size_of::<f32>() as u64,
            _ => self.stored_bytes(name),
        }
    }

    pub(crate) fn entry(&self, name: &str) -> Result<(&Shard, &TensorEntry), ModelError> {
        let found = self.entries.get(name).and_then(|(shard, entry)| Some((self.shards.get(*shard)?, entry)));
        found.ok_or_else(|| ModelError::MissingTensor { tensor: name.to_string() })
    }

    pub(crate) fn check_shape(&self, name: &str, expected: &[usize]) -> Result<(), ModelError> {
        let found = &self.entry(name)?.1.shape;
        if found == expected {
            return Ok(());
        }
        Err(ModelError::WrongShape { tensor: name.to_string(), expected: expected.to_vec(), found: found.clone() })
    }
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
