//! Linear layers as candle operations around our kernels.

use blake3::Hasher;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result as CandleResult, Shape, Tensor, bail};

use crate::block_loader::Layer;
use crate::error::ModelError;
use crate::kernels::Element;
use crate::products::products;
use crate::tensors::StoredMatrix;
use crate::weights::Matrix;

/// `y = x * weight^T + bias`: x `(rows, in)` f32, weight `(out, in)` in the weight format, bias `(out)` f32.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) weight: Matrix,
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    /// `(rows, in)` f32 to `(rows, out)` f32; each output element is the same whatever the number of rows.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let [y] = Self::forward_all([self], x)?;
        Ok(y)
    }

    /// Several layers with one input, computed together.
    pub(crate) fn forward_all<const N: usize>(layers: [&Self; N], x: &Tensor) -> Result<[Tensor; N], ModelError> {
        let matrices = layers.map(|layer| &layer.weight);
        let all = x.apply_op1_no_bwd(&RowsTimesMatrices(&matrices))?;
        let rows = x.dims2()?.0;
        let mut start = 0;
        let mut outputs = Vec::with_capacity(N);
        for layer in layers {
            let width = layer.weight.outputs;
            let y = all.narrow(0, start, rows * width)?.reshape((rows, width))?;
            start += rows * width;
            outputs.push(match &layer.bias {
                Some(bias) => y.apply_op2_no_bwd(bias, &AddBias)?,
                None => y,
            });
        }
        outputs.try_into().map_err(|_| candle_core::Error::Msg("a layer has no output".into()).into())
    }
}

impl Layer for Linear {
    /// The host's memory.
    type Place = ();

    fn load((): &(), stored: &StoredMatrix<'_>, digest: &mut Hasher) -> Result<Self, ModelError> {
        Ok(Self { weight: stored.load(digest)?, bias: None })
    }

    fn with_bias(self, (): &(), bias: Tensor) -> Result<Self, ModelError> {
        Ok(Self { bias: Some(bias), ..self })
    }

    fn vector((): &(), vector: Tensor) -> Result<Tensor, ModelError> {
        Ok(vector)
    }
}

/// Gives `(rows, out)` of each matrix, one after the other, as one vector.
struct RowsTimesMatrices<'a>(&'a [&'a Matrix]);

impl CustomOp1 for RowsTimesMatrices<'_> {
    fn name(&self) -> &'static str {
        "rows-times-matrices"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (rows, inner) = layout.shape().dims2()?;
        if let Some(matrix) = self.0.iter().find(|matrix| matrix.inner != inner) {
            bail!("rows of {inner} elements do not fit weights of {}", matrix.inner);
        }
        let y = products(contiguous::<f32>(x, layout)?, rows, self.0);
        let shape = Shape::from(y.len());
        Ok((CpuStorage::F32(y), shape))
    }
}

/// `x + bias` for each row of x `(rows, width)`, both in f32: on this thread, as [`crate::elementwise::sum`] says.
struct AddBias;

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let shape = x_layout.shape().clone();
        let (_, width) = shape.dims2()?;
        if bias_layout.shape().dims1()? != width {
            bail!("{shape:?} and a bias of {:?} differ in width", bias_layout.shape());
        }
        let mut out = contiguous::<f32>(x, x_layout)?.to_vec();
        let bias = contiguous::<f32>(bias, bias_layout)?;
        for row in out.chunks_exact_mut(width.max(1)) {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
        Ok((CpuStorage::F32(out), shape))
    }
}

/// The elements of a tensor that lies in one piece.
pub(crate) fn contiguous<'a, E: Element>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [E]> {
    let data = storage.as_slice::<E>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("the tensor does not lie in one piece"),
    }
}
