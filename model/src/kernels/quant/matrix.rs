//! A weight matrix in a quantised format, in memory.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use memmap2::MmapMut;
use rayon::prelude::*;
use swarm_protocol::model_id::WeightFormat;

use super::{CELL, Format, GROUP, Q4_0, Q4K, Q6K, Q8_0, Rows, panel};
use crate::error::ModelError;
use crate::kernels::{Element, with_kernel};

/// Groups quantised between two calls of a hash: enough for every thread, and no more than some MiB beside the matrix.
const BATCH_GROUPS: usize = 64;

/// A matrix `(outputs, inner)` in one of the quantised formats; a clone shares its memory.
#[derive(Debug, Clone)]
pub(crate) enum QuantMatrix {
    Q8_0(Packed<Q8_0>),
    Q4_0(Packed<Q4_0>),
    Q4K(Packed<Q4K>),
    #[allow(dead_code)] // Checkpoints bring it, no format on the command line does.
    Q6K(Packed<Q6K>),
}

macro_rules! with_packed {
    ($matrix:expr, $packed:ident => $body:expr) => {
        match $matrix {
            QuantMatrix::Q8_0($packed) => $body,
            QuantMatrix::Q4_0($packed) => $body,
            QuantMatrix::Q4K($packed) => $body,
            QuantMatrix::Q6K($packed) => $body,
        }
    };
}

impl QuantMatrix {
    /// Quantises rows of `inner` elements, a few at a time; `hash` is shown the quantised rows in order, in ggml's bytes.
    pub(crate) fn quantise<E: Element>(
        format: WeightFormat,
        values: &[E],
        inner: usize,
        hash: &mut dyn FnMut(&[u8]),
    ) -> Result<Self, ModelError> {
        match format {
            WeightFormat::Q8_0 => Packed::quantise(values, inner, hash).map(Self::Q8_0),
            WeightFormat::Q4_0 => Packed::quantise(values, inner, hash).map(Self::Q4_0),
            WeightFormat::Q4K => Packed::quantise(values, inner, hash).map(Self::Q4K),
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => {
                Err(candle_core::Error::Msg(format!("{format} is no quantised format")).into())
            }
        }
    }

    /// The products of `rows` with outputs `first ..` (a multiple of [`GROUP`]): as many as `y`, `(rows, outputs)`, has.
    pub(crate) fn panel(&self, rows: &Rows, count: usize, first: usize, y: &mut [f32]) {
        with_packed!(self, packed => packed.panel(rows, count, first, y));
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
        let mut memory = zeroed(groups * group_slabs * size_of::<F::Slab>())?;
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

    fn slabs(&self) -> &[F::Slab] {
        bytemuck::cast_slice(&self.memory)
    }

    fn panel(&self, rows: &Rows, count: usize, first: usize, y: &mut [f32]) {
        let groups = (y.len() / count).div_ceil(GROUP);
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
    let bytes = ggml_bytes(F::GGML, values, inner)?;
    let block_cells = F::GGML.block_size() / CELL;
    for (output, row) in bytes.chunks_exact(bytes.len() / rows).enumerate() {
        for (block, bytes) in row.chunks_exact(F::GGML.type_size()).enumerate() {
            let cell = block * block_cells;
            F::pack(&mut slabs[cell / F::CELLS], cell % F::CELLS, output, bytes);
        }
    }
    Ok(bytes)
}

/// Rows of `inner` elements in ggml's bytes; each is padded with zeros to whole blocks.
fn ggml_bytes<E: Element>(dtype: GgmlDType, values: &[E], inner: usize) -> Result<Vec<u8>, ModelError> {
    let padded = inner.next_multiple_of(dtype.block_size());
    let rows = values.len() / inner;
    let mut floats = vec![0.0; rows * padded];
    for (row, values) in floats.chunks_exact_mut(padded).zip(values.chunks_exact(inner)) {
        row.iter_mut().zip(values).for_each(|(to, from)| *to = from.widen());
    }
    let floats = Tensor::from_vec(floats, (rows, padded), &Device::Cpu)?;
    Ok(QTensor::quantize(&floats, dtype)?.data()?.into_owned())
}

/// A matrix in ggml's bytes, as other programs and accelerators hold it.
pub(crate) struct GgmlRows {
    pub(crate) dtype: GgmlDType,
    /// Elements of a row, padded with zeros to whole blocks.
    pub(crate) width: usize,
    /// Row by row: the bytes that [`QuantMatrix::quantise`] shows its hash.
    pub(crate) bytes: Vec<u8>,
}

impl GgmlRows {
    /// Quantises rows of `inner` elements; `None` if `format` quantises nothing.
    pub(crate) fn quantise<E: Element>(
        format: WeightFormat,
        values: &[E],
        inner: usize,
    ) -> Result<Option<Self>, ModelError> {
        let Some(dtype) = ggml_type(format) else { return Ok(None) };
        let groups = values.par_chunks(inner * GROUP).map(|values| ggml_bytes(dtype, values, inner));
        let groups = groups.collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Self { dtype, width: inner.next_multiple_of(dtype.block_size()), bytes: groups.concat() }))
    }
}

/// The quantised format's name in candle.
fn ggml_type(format: WeightFormat) -> Option<GgmlDType> {
    match format {
        WeightFormat::Q8_0 => Some(Q8_0::GGML),
        WeightFormat::Q4_0 => Some(Q4_0::GGML),
        WeightFormat::Q4K => Some(Q4K::GGML),
        WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => None,
    }
}

/// Memory of its own, in large pages where the system has them: a matrix is read from end to end again and again, and with
/// small pages the processor would look up where each of them lies.
fn zeroed(bytes: usize) -> Result<MmapMut, ModelError> {
    let memory = MmapMut::map_anon(bytes.max(1)).map_err(|error| ModelError::io("memory for weights", error))?;
    // An interpreter of the tests has no pages.
    #[cfg(all(target_os = "linux", not(miri)))]
    // A system without large pages refuses; then small ones it is.
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}
