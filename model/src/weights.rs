//! Weight matrices as they are held: in the mapped checkpoint, in memory, or quantised.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use candle_core::{Device, Tensor, WithDType};
use half::{bf16, f16};
use memmap2::MmapMut;

use crate::error::ModelError;
use crate::kernels::quant::Rows;
use crate::kernels::{Columns, Element, PANEL_STEP, QuantMatrix, panel, with_kernel};
use crate::large_pages::{self, LARGE_PAGE};
use crate::source::FileBytes;

/// Weights of one panel stay in a core's L2 while all rows pass over them.
const PANEL_BYTES: usize = 192 * 1024;
/// The most outputs of a panel, in steps: small matrices are split all the same.
const PANEL_MOST_STEPS: usize = 4;

/// A matrix `(outputs, inner)`; a clone shares its weights.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    pub(crate) outputs: usize,
    pub(crate) inner: usize,
    pub(crate) values: Values,
}

/// The weights of a matrix, row by row.
#[derive(Debug, Clone)]
pub(crate) enum Values {
    F32(Floats<f32>),
    F16(Floats<f16>),
    Bf16(Floats<bf16>),
    Quantised(QuantMatrix),
}

/// Elements that are shared, and may lie in a mapped file.
#[derive(Clone)]
pub(crate) struct Floats<E>(Held<E>);

#[derive(Clone)]
enum Held<E> {
    Owned(Arc<Vec<E>>),
    /// At the beginning of pages.
    LargePages(Arc<MmapMut>),
    /// Aligned for `E`.
    InPlace(FileBytes),
}

/// Rows to be multiplied, in whatever form the matrices want.
pub(crate) struct Input<'a> {
    x: &'a [f32],
    quantised: Option<Rows>,
}

impl<'a> Input<'a> {
    /// `x` is `(rows, inner)`; it is quantised once for all matrices that want it so.
    pub(crate) fn new(x: &'a [f32], rows: usize, matrices: &[&Matrix]) -> Self {
        let wanted = matrices.iter().any(|matrix| matches!(matrix.values, Values::Quantised(_)));
        Self { x, quantised: wanted.then(|| Rows::new(x, x.len() / rows)) }
    }
}

impl Matrix {
    /// Outputs that are computed together by one thread.
    pub(crate) fn panel_outputs(&self) -> usize {
        let fit = PANEL_BYTES / self.output_bytes().max(1);
        let steps = (fit / PANEL_STEP).clamp(1, PANEL_MOST_STEPS).min(self.outputs.div_ceil(PANEL_STEP));
        steps.max(1) * PANEL_STEP
    }

    fn output_bytes(&self) -> usize {
        match &self.values {
            Values::F32(_) => self.inner * size_of::<f32>(),
            Values::F16(_) | Values::Bf16(_) => self.inner * size_of::<f16>(),
            Values::Quantised(matrix) => matrix.output_bytes(),
        }
    }

    /// The products of all rows with some outputs, which begin at a multiple of [`PANEL_STEP`]; y has those columns.
    pub(crate) fn panel(&self, input: &Input<'_>, outputs: Range<usize>, y: Columns<'_>) {
        match &self.values {
            Values::F32(weights) => self.float_panel(weights.as_slice(), input, outputs, y),
            Values::F16(weights) => self.float_panel(weights.as_slice(), input, outputs, y),
            Values::Bf16(weights) => self.float_panel(weights.as_slice(), input, outputs, y),
            Values::Quantised(matrix) => {
                if let Some(rows) = &input.quantised {
                    matrix.panel(rows, outputs.start, y);
                }
            }
        }
    }

    fn float_panel<E: Element>(&self, weights: &[E], input: &Input<'_>, outputs: Range<usize>, y: Columns<'_>) {
        let weights = &weights[outputs.start * self.inner..outputs.end * self.inner];
        with_kernel!(kernel => panel(kernel, input.x, weights, self.inner, y));
    }

    /// Rows `ids` as a tensor `(ids, inner)`; `None` for quantised matrices, and for ids it does not have.
    pub(crate) fn rows(&self, ids: &[u32]) -> Option<Result<Tensor, ModelError>> {
        match &self.values {
            Values::F32(weights) => self.float_rows(weights.as_slice(), ids),
            Values::F16(weights) => self.float_rows(weights.as_slice(), ids),
            Values::Bf16(weights) => self.float_rows(weights.as_slice(), ids),
            Values::Quantised(_) => None,
        }
    }

    fn float_rows<E: Element>(&self, weights: &[E], ids: &[u32]) -> Option<Result<Tensor, ModelError>> {
        let mut values = Vec::with_capacity(ids.len() * self.inner);
        for id in ids {
            values.extend_from_slice(weights.get(*id as usize * self.inner..)?.get(..self.inner)?);
        }
        Some(Tensor::from_vec(values, (ids.len(), self.inner), &Device::Cpu).map_err(ModelError::from))
    }
}

impl<E: Pod> Floats<E> {
    pub(crate) fn owned(values: Vec<E>) -> Self {
        Self(Held::Owned(Arc::new(values)))
    }

    /// The elements where they lie; `None` if they lie askew.
    pub(crate) fn in_place(bytes: FileBytes) -> Option<Self> {
        let aligned = bytemuck::try_cast_slice::<u8, E>(bytes.as_slice()).is_ok();
        aligned.then_some(Self(Held::InPlace(bytes)))
    }

    pub(crate) fn as_slice(&self) -> &[E] {
        match &self.0 {
            Held::Owned(values) => values,
            Held::LargePages(pages) => bytemuck::cast_slice(pages),
            Held::InPlace(bytes) => bytemuck::cast_slice(bytes.as_slice()),
        }
    }
}

impl<E: Element> Floats<E> {
    /// The same elements where the types agree, rounded one by one where not; what does not stay in its file, and is large, comes
    /// into large pages.
    ///
    /// # Errors
    /// [`ModelError::Io`] if there is no memory for it.
    pub(crate) fn convert<To: Element>(self) -> Result<Floats<To>, ModelError> {
        let same = <E as WithDType>::DTYPE == <To as WithDType>::DTYPE;
        if let Held::InPlace(bytes) = &self.0
            && same
        {
            return Ok(Floats(Held::InPlace(bytes.clone())));
        }
        let values = self.as_slice();
        let bytes = values.len() * size_of::<To>();
        if bytes < LARGE_PAGE {
            return Ok(Floats::owned(values.iter().map(|value| To::round(value.widen())).collect()));
        }
        let mut pages = large_pages::zeroed(bytes)?;
        if same {
            pages.copy_from_slice(bytemuck::cast_slice(values));
        } else {
            for (to, value) in bytemuck::cast_slice_mut(&mut pages).iter_mut().zip(values) {
                *to = To::round(value.widen());
            }
        }
        Ok(Floats(Held::LargePages(Arc::new(pages))))
    }
}

impl<E> fmt::Debug for Floats<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.0 {
            Held::Owned(_) | Held::LargePages(_) => "owned",
            Held::InPlace(_) => "in place",
        };
        f.write_str(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_straight_is_used_in_place() {
        static BYTES: [u8; 16] = [0; 16];
        let places = (0..4).filter(|start| Floats::<f32>::in_place(FileBytes::Static(&BYTES[*start..][..8])).is_some());
        assert_eq!(places.count(), 1);
    }

    #[test]
    fn what_is_converted_is_the_same_in_small_and_large_pages() {
        for count in [5, LARGE_PAGE / 2 - 1, LARGE_PAGE / 2, LARGE_PAGE / 2 + 1, LARGE_PAGE + 3] {
            let values: Vec<f32> = (0..count).map(|place| (place % 1000) as f32 / 7.0).collect();
            let rounded: Floats<bf16> = Floats::owned(values.clone()).convert().unwrap();
            let large = matches!(rounded.0, Held::LargePages(_));
            assert_eq!(large, count >= LARGE_PAGE / 2);
            assert!(
                rounded.as_slice().iter().eq(values
                    .iter()
                    .map(|value| bf16::from_f32(*value))
                    .collect::<Vec<_>>()
                    .iter())
            );
            let same: Floats<bf16> = rounded.clone().convert().unwrap();
            assert_eq!(same.as_slice(), rounded.as_slice());
            let widened: Floats<f32> = rounded.clone().convert().unwrap();
            assert!(
                widened.as_slice().iter().eq(rounded
                    .as_slice()
                    .iter()
                    .map(|value| value.to_f32())
                    .collect::<Vec<_>>()
                    .iter())
            );
        }
    }
}
