//! Reading tensors: in place where they are stored as they are wanted, else converted on the way.

use std::ops::Range;

use blake3::Hasher;
use bytemuck::Pod;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::ElementType;

use crate::embedding::Embedding;
use crate::error::ModelError;
use crate::kernels::{Element, GgmlRows, QuantMatrix, QuantType, block_of_pairs, dequantise};
use crate::stored_type::StoredType;
use crate::tensor_file::{Microscaled, Rows, TensorEntry, Written};
use crate::tensors::{Shard, Tensors};
use crate::weights::{Floats, Matrix, Values};

/// Elements of a block of MXFP4.
const MXFP4_CELL: usize = 32;

/// `$body` with the elements of a tensor, of whatever type they are; not hashed.
macro_rules! with_elements {
    ($tensors:expr, $name:expr, $stored:expr, $values:ident => $body:expr) => {
        match $stored {
            StoredType::Float(ElementType::F32) => {
                let elements = $tensors.own::<f32>($name, None)?;
                let $values = elements.as_slice();
                $body
            }
            StoredType::Float(ElementType::F16) => {
                let elements = $tensors.own::<f16>($name, None)?;
                let $values = elements.as_slice();
                $body
            }
            StoredType::Float(ElementType::Bf16) => {
                let elements = $tensors.own::<bf16>($name, None)?;
                let $values = elements.as_slice();
                $body
            }
            StoredType::Quantised(kind) => {
                let elements = dequantise(kind, $tensors.own::<u8>($name, None)?.as_slice())?;
                let $values = &elements[..];
                $body
            }
            other => Err(wrong_type($name, other)),
        }
    };
}

impl Tensors {
    /// The matrix `(outputs, inner)` in `format`: where it is stored so already, it stays in the mapped file or is only packed.
    /// Its name, type, shape and bytes go to `digest`: of a matrix quantised here the bytes after quantising, of others those
    /// stored.
    pub(crate) fn matrix(
        &self,
        name: &str,
        (outputs, inner): (usize, usize),
        format: WeightFormat,
        digest: &mut Hasher,
    ) -> Result<Matrix, ModelError> {
        let wanted = self.wanted(name, format)?;
        self.matrix_of(wanted, name, (outputs, inner), digest)
    }

    /// The same for those who know candle's types only: others become bfloat16, which holds all that MXFP4 can.
    pub(crate) fn dense(
        &self,
        name: &str,
        shape: (usize, usize),
        format: WeightFormat,
        digest: &mut Hasher,
    ) -> Result<Matrix, ModelError> {
        let wanted = match self.wanted(name, format)? {
            StoredType::Quantised(kind) if kind.ggml().is_none() => StoredType::Float(ElementType::Bf16),
            wanted => wanted,
        };
        self.matrix_of(wanted, name, shape, digest)
    }

    fn matrix_of(
        &self,
        wanted: StoredType,
        name: &str,
        (outputs, inner): (usize, usize),
        digest: &mut Hasher,
    ) -> Result<Matrix, ModelError> {
        self.check_shape(name, &[outputs, inner])?;
        let values = match wanted {
            StoredType::Float(ElementType::F32) => Values::F32(self.floats(name, digest)?),
            StoredType::Float(ElementType::F16) => Values::F16(self.floats(name, digest)?),
            StoredType::Float(ElementType::Bf16) => Values::Bf16(self.floats(name, digest)?),
            StoredType::Quantised(kind) => Values::Quantised(self.quantised(name, inner, kind, digest)?),
            other => return Err(wrong_type(name, other)),
        };
        Ok(Matrix { outputs, inner, values })
    }

    /// The embedding `(vocab, hidden)` in `format`.
    pub(crate) fn embedding(
        &self,
        name: &str,
        (vocab, hidden): (usize, usize),
        format: WeightFormat,
        digest: &mut Hasher,
    ) -> Result<Embedding, ModelError> {
        match (StoredType::of(format), self.type_of(name)?) {
            (None, StoredType::Quantised(kind)) => {
                self.check_shape(name, &[vocab, hidden])?;
                Ok(Embedding::Ggml { kind, width: hidden, bytes: self.own(name, Some(digest))? })
            }
            _ => self.matrix(name, (vocab, hidden), format, digest).map(Embedding::Floats),
        }
    }

    /// A vector of `width` elements as f32, hashed as stored.
    pub(crate) fn vector(&self, name: &str, width: usize, digest: &mut Hasher) -> Result<Tensor, ModelError> {
        self.check_shape(name, &[width])?;
        let mut values = self.floats::<f32>(name, digest)?;
        if self.entry(name)?.1.written == Written::PlusOne {
            values = Floats::owned(values.as_slice().iter().map(|value| value - 1.0).collect());
        }
        Ok(Tensor::from_slice(values.as_slice(), width, &Device::Cpu)?)
    }

    /// The matrix `(outputs, inner)` in ggml's bytes if it is quantised in `format`, hashed as [`Tensors::matrix`] does.
    pub(crate) fn ggml(
        &self,
        name: &str,
        (outputs, inner): (usize, usize),
        format: WeightFormat,
        digest: &mut Hasher,
    ) -> Result<Option<GgmlRows>, ModelError> {
        self.check_shape(name, &[outputs, inner])?;
        let StoredType::Quantised(kind) = self.wanted(name, format)? else { return Ok(None) };
        if kind.ggml().is_none() {
            return Ok(None);
        }
        let stored = self.type_of(name)?;
        if stored == StoredType::Quantised(kind) {
            let bytes = self.own::<u8>(name, Some(digest))?.as_slice().to_vec();
            return Ok(Some(GgmlRows { kind, width: inner, bytes }));
        }
        let rows = with_elements!(self, name, stored, values => GgmlRows::quantise(kind, values, inner))?;
        hash_header(digest, name, kind.name(), &[outputs, inner]);
        digest.update(&rows.bytes);
        Ok(Some(rows))
    }

    /// What a matrix is held in. The experts of a checkpoint in bfloat16 may be stored in MXFP4: they stay so.
    fn wanted(&self, name: &str, format: WeightFormat) -> Result<StoredType, ModelError> {
        let stored = self.type_of(name)?;
        match (StoredType::of(format), stored) {
            (None, _) | (Some(StoredType::Float(ElementType::Bf16)), StoredType::Quantised(QuantType::Mxfp4)) => {
                Ok(stored)
            }
            (Some(wanted), _) => Ok(wanted),
        }
    }

    /// All elements of a tensor of any shape in f32.
    pub(crate) fn f32s(&self, name: &str, digest: &mut Hasher) -> Result<Vec<f32>, ModelError> {
        Ok(self.floats::<f32>(name, digest)?.as_slice().to_vec())
    }

    fn quantised(
        &self,
        name: &str,
        inner: usize,
        kind: QuantType,
        digest: &mut Hasher,
    ) -> Result<QuantMatrix, ModelError> {
        let stored = self.type_of(name)?;
        if stored == StoredType::Quantised(kind) {
            return QuantMatrix::pack(kind, self.own::<u8>(name, Some(digest))?.as_slice(), inner);
        }
        hash_header(digest, name, kind.name(), &self.entry(name)?.1.shape);
        let hash = &mut |bytes: &[u8]| {
            digest.update(bytes);
        };
        with_elements!(self, name, stored, values => QuantMatrix::quantise(kind, values, inner, hash))
    }

    /// All elements of a tensor, rounded if they are stored in another type; hashed as stored.
    fn floats<To: Element>(&self, name: &str, digest: &mut Hasher) -> Result<Floats<To>, ModelError> {
        let digest = Some(digest);
        match self.type_of(name)? {
            StoredType::Float(ElementType::F32) => self.own::<f32>(name, digest)?.convert(),
            StoredType::Float(ElementType::F16) => self.own::<f16>(name, digest)?.convert(),
            StoredType::Float(ElementType::Bf16) => self.own::<bf16>(name, digest)?.convert(),
            StoredType::Quantised(kind) => {
                Floats::owned(dequantise(kind, self.own::<u8>(name, digest)?.as_slice())?).convert()
            }
            other => Err(wrong_type(name, other)),
        }
    }

    /// The tensor as it is stored, its rows in the order that its name stands for; `digest` gets what is stored.
    pub(crate) fn own<E: Pod>(&self, name: &str, digest: Option<&mut Hasher>) -> Result<Floats<E>, ModelError> {
        let (shard, entry) = self.entry(name)?;
        let stored = match &entry.written {
            Written::Microscaled(place) => {
                Floats::owned(bytemuck::pod_collect_to_vec(&self.joined(shard, entry, place)?))
            }
            Written::Every(rows) => {
                let all = stored::<E>(shard, &entry.bytes)?;
                Floats::owned(all.as_slice().iter().skip(rows.first).step_by(rows.step).copied().collect())
            }
            Written::Turned(rows) => {
                Floats::owned(turned(stored::<E>(shard, &entry.bytes)?.as_slice(), entry.shape[0], *rows))
            }
            Written::Plain | Written::PlusOne | Written::HeadsInterleaved(_) => stored(shard, &entry.bytes)?,
        };
        if let Some(digest) = digest {
            hash_header(digest, name, &entry.stored.to_string(), &entry.shape);
            // On the threads of the pool that this is called in.
            digest.update_rayon(bytemuck::cast_slice(stored.as_slice()));
        }
        Ok(match entry.written {
            Written::HeadsInterleaved(heads) => Floats::owned(side_by_side(stored.as_slice(), entry.shape[0], heads)),
            _ => stored,
        })
    }

    /// A matrix in MXFP4 as blocks that begin with their scales.
    fn joined(&self, shard: &Shard, entry: &TensorEntry, place: &Microscaled) -> Result<Vec<u8>, ModelError> {
        let missing = || ModelError::file(&shard.label, "the scales of a tensor are in no file");
        let scales = stored::<u8>(self.shard(place.scales_shard).ok_or_else(missing)?, &place.scales)?;
        let elements = stored::<u8>(shard, &entry.bytes)?;
        // Shapes were checked: so many cells a row, of so many rows as both hold.
        let cells = entry.shape[1] / MXFP4_CELL;
        let (pairs, _) = elements.as_slice().as_chunks::<{ MXFP4_CELL / 2 }>();
        let rows = pairs.chunks_exact(cells).zip(scales.as_slice().chunks_exact(cells));
        let own = rows.skip(place.rows.first).step_by(place.rows.step);
        let blocks = own.flat_map(|(pairs, scales)| pairs.iter().zip(scales));
        Ok(blocks.flat_map(|(pairs, scale)| block_of_pairs(*scale, pairs)).collect())
    }
}

/// The stored elements: in place, or read where they cannot be had so. An entry's bytes lie within the file, so a lying header
/// cannot make this allocate more than the file's length.
fn stored<E: Pod>(shard: &Shard, bytes: &Range<u64>) -> Result<Floats<E>, ModelError> {
    if let Some(floats) = shard.source.in_place(bytes.clone()).and_then(Floats::in_place) {
        return Ok(floats);
    }
    let mut values = vec![E::zeroed(); (bytes.end - bytes.start) as usize / size_of::<E>()];
    let read = shard.source.read_at(bytes.start, bytemuck::cast_slice_mut(&mut values));
    read.map_err(|error| ModelError::io(shard.label.clone(), error))?;
    Ok(Floats::owned(values))
}

/// Some columns of a matrix, as `outputs` rows.
fn turned<E: Pod>(values: &[E], outputs: usize, columns: Rows) -> Vec<E> {
    let width = outputs * columns.step;
    let column =
        |output: usize| values.iter().skip(columns.first + output * columns.step).step_by(width.max(1)).copied();
    (0..outputs).flat_map(column).collect()
}

/// The halves of each head one after the other, of `rows` rows that hold them row by row in turn.
fn side_by_side<E: Pod>(values: &[E], rows: usize, heads: usize) -> Vec<E> {
    let (width, half) = (values.len() / rows, rows / heads / 2);
    let mut ordered = Vec::with_capacity(values.len());
    for head in values.chunks_exact(2 * half * width) {
        for first in 0..2 {
            for pair in 0..half {
                ordered.extend_from_slice(&head[(2 * pair + first) * width..][..width]);
            }
        }
    }
    ordered
}

fn wrong_type(name: &str, found: StoredType) -> ModelError {
    ModelError::WrongType { tensor: name.to_string(), found: found.to_string() }
}

/// Unambiguous bytes for a tensor's name, type and shape.
fn hash_header(digest: &mut Hasher, name: &str, stored: &str, shape: &[usize]) {
    digest.update(format!("{name} {stored} {shape:?}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_a_head_are_put_side_by_side() {
        // Two heads of four rows of two.
        let stored = [0, 0, 2, 2, 1, 1, 3, 3, 4, 4, 6, 6, 5, 5, 7, 7];
        assert_eq!(side_by_side(&stored, 8, 2), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]);
    }
}
