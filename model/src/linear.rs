//! Linear layers and the gated activation as candle operations around our kernels.

use candle_core::{CpuStorage, CustomOp2, Layout, Result as CandleResult, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::error::ModelError;
use crate::kernels::{Element, Kernel, matmul, with_kernel};

/// `y = x * weight^T + bias`: x `(rows, in)` f32, weight `(out, in)` in the weight format, bias `(out)` f32.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    /// `(rows, in)` f32 to `(rows, out)` f32; each output element is the same whatever the number of rows.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let y = x.apply_op2_no_bwd(&self.weight, &RowsTimesWeights)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

/// `silu(gate) * up`, both `(rows, width)` f32.
pub(crate) fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor, ModelError> {
    Ok(gate.apply_op2_no_bwd(up, &SiluMul)?)
}

struct RowsTimesWeights;

impl CustomOp2 for RowsTimesWeights {
    fn name(&self) -> &'static str {
        "rows-times-weights"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (rows, inner) = x_layout.shape().dims2()?;
        let (outputs, weight_inner) = weight_layout.shape().dims2()?;
        if inner != weight_inner {
            bail!("rows of {inner} elements do not fit weights of {weight_inner}");
        }
        let x = contiguous::<f32>(x, x_layout)?;
        let mut y = vec![0.0; rows * outputs];
        match weight {
            CpuStorage::F32(_) => matmul(x, rows, contiguous::<f32>(weight, weight_layout)?, inner, &mut y),
            CpuStorage::F16(_) => {
                matmul(x, rows, contiguous::<half::f16>(weight, weight_layout)?, inner, &mut y);
            }
            CpuStorage::BF16(_) => {
                matmul(x, rows, contiguous::<half::bf16>(weight, weight_layout)?, inner, &mut y);
            }
            _ => bail!("weights are f32, f16 or bf16"),
        }
        Ok((CpuStorage::F32(y), Shape::from((rows, outputs))))
    }
}

/// Elements below which one thread does it all.
const PARALLEL_ELEMENTS: usize = 64 * 1024;

struct SiluMul;

impl CustomOp2 for SiluMul {
    fn name(&self) -> &'static str {
        "silu-mul"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let shape = gate_layout.shape().clone();
        let (rows, width) = shape.dims2()?;
        if up_layout.shape() != &shape {
            bail!("gate {shape:?} and up {:?} differ in shape", up_layout.shape());
        }
        let mut out = contiguous::<f32>(gate, gate_layout)?.to_vec();
        let up = contiguous::<f32>(up, up_layout)?;
        with_kernel!(kernel => if rows * width < PARALLEL_ELEMENTS {
            kernel.silu_mul(&mut out, up);
        } else {
            let pairs = out.par_chunks_mut(width).zip(up.par_chunks(width));
            pairs.for_each(|(gate, up)| kernel.silu_mul(gate, up));
        });
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
