//! A weight matrix in a quantised format, in memory.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use candle_core::quantized::{QStorage, QTensor};
use candle_core::{Device, Tensor};
use memmap2::MmapMut;
use rayon::prelude::*;

use super::{CELL, Format, GROUP, Mxfp4, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, QuantType, Rows, mxfp4, panel};
use crate::error::ModelError;
use crate::kernels::{Columns, Element, with_kernel};
use crate::large_pages;

/// Groups quantised between two calls of a hash: enough for every thread, and no more than some MiB beside the matrix.
const BATCH_GROUPS: usize = 64;

/// A matrix `(outputs, inner)` in one of the quantised formats; a clone shares its memory.
#[derive(Debug, Clone)]
pub(crate) enum QuantMatrix {
    Q8_0(Packed<Q8_0>),
    Q4_0(Packed<Q4_0>),
    Q4_1(Packed<Q4_1>),
    Q5_0(Packed<Q5_0>),
    Q5_1(Packed<Q5_1>),
    Q4K(Packed<Q4K>),
    Q5K(Packed<Q5K>),
    Q6K(Packed<Q6K>),
    Mxfp4(Packed<Mxfp4>),
}

macro_rules! with_packed {
    ($matrix:expr, $packed:ident => $body:expr) => {
        match $matrix {
            QuantMatrix::Q8_0($packed) => $body,
            QuantMatrix::Q4_0($packed) => $body,
            QuantMatrix::Q4_1($packed) => $body,
            QuantMatrix::Q5_0($packed) => $body,
            QuantMatrix::Q5_1($packed) => $body,
            QuantMatrix::Q4K($packed) => $body,
            QuantMatrix::Q5K($packed) => $body,
            QuantMatrix::Q6K($packed) => $body,
            QuantMatrix::Mxfp4($packed) => $body,
        }
    };
}

impl QuantMatrix {
    /// Quantises rows of `inner` elements, a few at a time; `hash` is shown the quantised rows in order, in ggml's bytes.
    pub(crate) fn quantise<E: Element>(
        kind: QuantType,
        values: &[E],
        inner: usize,
        hash: &mut dyn FnMut(&[u8]),
    ) -> Result<Self, ModelError> {
        match kind {
            QuantType::Q8_0 => Packed::quantise(values, inner, hash).map(Self::Q8_0),
            QuantType::Q4_0 => Packed::quantise(values, inner, hash).map(Self::Q4_0),
            QuantType::Q4_1 => Packed::quantise(values, inner, hash).map(Self::Q4_1),
            QuantType::Q5_0 => Packed::quantise(values, inner, hash).map(Self::Q5_0),
            QuantType::Q5_1 => Packed::quantise(values, inner, hash).map(Self::Q5_1),
            QuantType::Q4K => Packed::quantise(values, inner, hash).map(Self::Q4K),
            QuantType::Q5K => Packed::quantise(values, inner, hash).map(Self::Q5K),
            QuantType::Q6K => Packed::quantise(values, inner, hash).map(Self::Q6K),
            QuantType::Mxfp4 => Packed::quantise(values, inner, hash).map(Self::Mxfp4),
        }
    }

    /// Takes over rows of `inner` elements, which are whole blocks, from ggml's bytes.
    pub(crate) fn pack(kind: QuantType, bytes: &[u8], inner: usize) -> Result<Self, ModelError> {
        match kind {
            QuantType::Q8_0 => Packed::pack(bytes, inner).map(Self::Q8_0),
            QuantType::Q4_0 => Packed::pack(bytes, inner).map(Self::Q4_0),
            QuantType::Q4_1 => Packed::pack(bytes, inner).map(Self::Q4_1),
            QuantType::Q5_0 => Packed::pack(bytes, inner).map(Self::Q5_0),
            QuantType::Q5_1 => Packed::pack(bytes, inner).map(Self::Q5_1),
            QuantType::Q4K => Packed::pack(bytes, inner).map(Self::Q4K),
            QuantType::Q5K => Packed::pack(bytes, inner).map(Self::Q5K),
            QuantType::Q6K => Packed::pack(bytes, inner).map(Self::Q6K),
            QuantType::Mxfp4 => Packed::pack(bytes, inner).map(Self::Mxfp4),
        }
    }

    /// The products of `rows` with outputs `first ..` (a multiple of [`GROUP`]): as many as `y` has columns.
    pub(crate) fn panel(&self, rows: &Rows, first: usize, y: Columns<'_>) {
        with_packed!(self, packed => packed.panel(rows, first, y));
    }

    /// Bytes of one output's weights.
    pub(crate) fn output_bytes(&self) -> usize {
        with_packed!(self, packed => packed.output_bytes())
    }
}

/// A matrix in format `F`.
pub(crate) struct Packed<F> {
    memory: Arc<MmapMut>,
    group_slabs: usize,
    format: PhantomData<F>,
}

impl<F> Clone for Packed<F> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), group_slabs: self.group_slabs, format: PhantomData }
    }
}

impl<F> fmt::Debug for Packed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").field("bytes", &self.memory.len()).finish_non_exhaustive()
    }
}

impl<F: Format> Packed<F> {
    pub(super) fn quantise<E: Element>(
        values: &[E],
        inner: usize,
        hash: &mut dyn FnMut(&[u8]),
    ) -> Result<Self, ModelError> {
        let group_slabs = inner.div_ceil(F::CELLS * CELL);
        let groups = (values.len() / inner).div_ceil(GROUP);
        let mut memory = large_pages::zeroed(groups * group_slabs * size_of::<F::Slab>())?;
        let slabs: &mut [F::Slab] = bytemuck::cast_slice_mut(&mut memory);
        let batches = slabs.chunks_mut(group_slabs * BATCH_GROUPS).zip(values.chunks(inner * GROUP * BATCH_GROUPS));
        for (slabs, values) in batches {
            let groups = slabs.par_chunks_mut(group_slabs).zip(values.par_chunks(inner * GROUP));
            let packed: Vec<_> = groups.map(|(slabs, values)| pack_group::<F, E>(slabs, values, inner)).collect();
            for bytes in packed {
                hash(&bytes?);
            }
        }
        Ok(Self { memory: Arc::new(memory), group_slabs, format: PhantomData })
    }

    /// Rows of `inner` elements in ggml's bytes.
    pub(super) fn pack(bytes: &[u8], inner: usize) -> Result<Self, ModelError> {
        let row_bytes = F::KIND.row_bytes(inner);
        let group_slabs = inner.div_ceil(F::CELLS * CELL);
        let groups = (bytes.len() / row_bytes).div_ceil(GROUP);
        let mut memory = large_pages::zeroed(groups * group_slabs * size_of::<F::Slab>())?;
        let slabs: &mut [F::Slab] = bytemuck::cast_slice_mut(&mut memory);
        let groups = slabs.par_chunks_mut(group_slabs).zip(bytes.par_chunks(row_bytes * GROUP));
        groups.for_each(|(slabs, bytes)| pack_rows::<F>(slabs, bytes, row_bytes));
        Ok(Self { memory: Arc::new(memory), group_slabs, format: PhantomData })
    }

    fn slabs(&self) -> &[F::Slab] {
        bytemuck::cast_slice(&self.memory)
    }

    fn panel(&self, rows: &Rows, first: usize, y: Columns<'_>) {
        let groups = y.columns().div_ceil(GROUP);
        let slabs = &self.slabs()[first / GROUP * self.group_slabs..][..groups * self.group_slabs];
        with_kernel!(kernel => panel::<_, F>(kernel, rows, slabs, self.group_slabs, y));
    }

    fn output_bytes(&self) -> usize {
        self.group_slabs * size_of::<F::Slab>() / GROUP
    }

    /// The matrix as a plain implementation of the format's definition would multiply it.
    #[cfg(test)]
    pub(super) fn parts(&self) -> (&[F::Slab], usize) {
        (self.slabs(), self.group_slabs)
    }
}

/// Quantises at most eight rows; returns them in ggml's bytes.
fn pack_group<F: Format, E: Element>(slabs: &mut [F::Slab], values: &[E], inner: usize) -> Result<Vec<u8>, ModelError> {
    let rows = values.len() / inner;
    let bytes = ggml_bytes(F::KIND, values, inner)?;
    pack_rows::<F>(slabs, &bytes, bytes.len() / rows);
    Ok(bytes)
}

/// Puts at most eight rows in ggml's bytes where they belong.
fn pack_rows<F: Format>(slabs: &mut [F::Slab], bytes: &[u8], row_bytes: usize) {
    let block_cells = F::KIND.block_elements() / CELL;
    for (output, row) in bytes.chunks_exact(row_bytes).enumerate() {
        for (block, bytes) in row.chunks_exact(F::KIND.block_bytes()).enumerate() {
            let cell = block * block_cells;
            F::pack(&mut slabs[cell / F::CELLS], cell % F::CELLS, output, bytes);
        }
    }
}

/// Rows of `inner` elements in ggml's bytes; each is padded with zeros to whole blocks.
fn ggml_bytes<E: Element>(kind: QuantType, values: &[E], inner: usize) -> Result<Vec<u8>, ModelError> {
    let padded = inner.next_multiple_of(kind.block_elements());
    let rows = values.len() / inner;
    let mut floats = vec![0.0; rows * padded];
    for (row, values) in floats.chunks_exact_mut(padded).zip(values.chunks_exact(inner)) {
        row.iter_mut().zip(values).for_each(|(to, from)| *to = from.widen());
    }
    let Some(dtype) = kind.ggml() else { return Ok(mxfp4::quantise(&floats)) };
    let floats = Tensor::from_vec(floats, (rows, padded), &Device::Cpu)?;
    Ok(QTensor::quantize(&floats, dtype)?.data()?.into_owned())
}

/// A matrix in ggml's bytes, as other programs and accelerators hold it.
pub(crate) struct GgmlRows {
    pub(crate) kind: QuantType,
    /// Elements of a row, padded with zeros to whole blocks.
    pub(crate) width: usize,
    /// Row by row: the bytes that [`QuantMatrix::quantise`] shows its hash.
    pub(crate) bytes: Vec<u8>,
}

impl GgmlRows {
    /// Quantises rows of `inner` elements.
    pub(crate) fn quantise<E: Element>(kind: QuantType, values: &[E], inner: usize) -> Result<Self, ModelError> {
        let groups = values.par_chunks(inner * GROUP).map(|values| ggml_bytes(kind, values, inner));
        let groups = groups.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { kind, width: inner.next_multiple_of(kind.block_elements()), bytes: groups.concat() })
    }
}

/// Blocks read at a time where many are, so that threads share them.
const BATCH_BLOCKS: usize = 1024;

/// What whole blocks in ggml's bytes stand for.
pub(crate) fn dequantise(kind: QuantType, bytes: &[u8]) -> Result<Vec<f32>, ModelError> {
    let batches = bytes.par_chunks(kind.block_bytes() * BATCH_BLOCKS).map(|bytes| {
        let Some(dtype) = kind.ggml() else { return Ok(mxfp4::dequantise(bytes)) };
        // ggml's blocks hold 16-bit scales; what lies in a file may lie askew.
        let mut aligned = vec![0u16; bytes.len() / size_of::<u16>()];
        bytemuck::cast_slice_mut(&mut aligned).copy_from_slice(bytes);
        let elements = bytes.len() / kind.block_bytes() * kind.block_elements();
        let storage = QStorage::from_data(Cow::Borrowed(bytemuck::cast_slice(&aligned)), &Device::Cpu, dtype)?;
        QTensor::new(storage, elements)?.dequantize(&Device::Cpu)?.to_vec1::<f32>()
    });
    Ok(batches.collect::<Result<Vec<_>, candle_core::Error>>()?.concat())
}
