//! What a block does element by element, as candle operations around our kernels.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result as CandleResult, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::config::Activation;
use crate::error::ModelError;
use crate::kernels::{Kernel, with_kernel};
use crate::linear::contiguous;

/// Elements below which one thread does it all.
const PARALLEL_ELEMENTS: usize = 64 * 1024;

/// What `activation` makes of `gate` and `up`, both `(rows, width)` f32.
pub(crate) fn gated(activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor, ModelError> {
    Ok(gate.apply_op2_no_bwd(up, &Gated(activation))?)
}

struct Gated(Activation);

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated"
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
            kernel.activate(self.0, &mut out, up);
        } else {
            let pairs = out.par_chunks_mut(width).zip(up.par_chunks(width));
            pairs.for_each(|(gate, up)| kernel.activate(self.0, gate, up));
        });
        Ok((CpuStorage::F32(out), shape))
    }
}

/// `x + y`, both `(rows, width)` in f32. candle's own sum takes threads of candle's, which wait by spinning, beside those that
/// the user gave.
pub(crate) fn sum(x: &Tensor, y: &Tensor) -> Result<Tensor, ModelError> {
    Ok(x.apply_op2_no_bwd(y, &Sum)?)
}

struct Sum;

impl CustomOp2 for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let shape = x_layout.shape().clone();
        if y_layout.shape() != &shape {
            bail!("{shape:?} and {:?} differ in shape", y_layout.shape());
        }
        let mut out = contiguous::<f32>(x, x_layout)?.to_vec();
        let y = contiguous::<f32>(y, y_layout)?;
        out.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        Ok((CpuStorage::F32(out), shape))
    }
}

/// `cap * tanh(x / cap)` of each element of x `(rows, width)` f32.
pub(crate) fn capped(x: &Tensor, cap: f32) -> Result<Tensor, ModelError> {
    Ok(x.apply_op1_no_bwd(&Capped(cap))?)
}

struct Capped(f32);

impl CustomOp1 for Capped {
    fn name(&self) -> &'static str {
        "capped"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let mut out = contiguous::<f32>(x, layout)?.to_vec();
        with_kernel!(kernel => kernel.cap(&mut out, 1.0, self.0));
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

/// Rotates the beginning of each head of x `(rows, heads * head_dim)` by the rows' `cos` and `sin`, both `(rows, pairs)`:
/// element `i` with element `pairs + i` of its head. What a head has behind `2 * pairs` stays.
pub(crate) fn rotated(x: &Tensor, cos: &Tensor, sin: &Tensor, head_dim: usize) -> Result<Tensor, ModelError> {
    Ok(x.apply_op3_no_bwd(cos, sin, &Rotate { head_dim })?)
}

struct Rotate {
    head_dim: usize,
}

impl CustomOp3 for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let shape = x_layout.shape().clone();
        let (rows, width) = shape.dims2()?;
        let (turned, pairs) = cos_layout.shape().dims2()?;
        if turned != rows || 2 * pairs > self.head_dim || !width.is_multiple_of(self.head_dim) || pairs == 0 {
            bail!("{shape:?} cannot be rotated by {:?}", cos_layout.shape());
        }
        let mut out = contiguous::<f32>(x, x_layout)?.to_vec();
        let cos = contiguous::<f32>(cos, cos_layout)?.chunks_exact(pairs);
        let sin = contiguous::<f32>(sin, sin_layout)?.chunks_exact(pairs);
        for (row, (cos, sin)) in out.chunks_exact_mut(width).zip(cos.zip(sin)) {
            row.chunks_exact_mut(self.head_dim).for_each(|head| rotate(head, cos, sin));
        }
        Ok((CpuStorage::F32(out), shape))
    }
}

fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, rest) = head.split_at_mut(cos.len());
    for ((a, b), (cos, sin)) in first.iter_mut().zip(rest).zip(cos.iter().zip(sin)) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}
