//! Weights in a few bits, and their products with rows in eight.
//!
//! [`CELL`] neighbouring elements of a row are a *cell*: they share a scale. The cells of eight outputs lie side by side
//! (a *group*, see [`Format::Slab`]), so that a register holds four elements of each of eight outputs and a lane
//! belongs to one output from beginning to end: there is no order of lanes to agree on.
//!
//! A row of activations is quantised cell by cell, by itself ([`Cell`]). The products within a cell are added as
//! integers, exactly; cells are added in order, each with one fused multiply-add as its format says. So every kernel
//! gives the same bits, however many rows share the call.

mod cell;
mod five;
mod kind;
mod matmul;
mod matrix;
mod mxfp4;
mod nibbles;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;

use std::fmt::Debug;

use bytemuck::Pod;

use super::Lanes;

pub(crate) use cell::{Cell, quantise_row};
pub(crate) use kind::QuantType;
pub(crate) use matmul::{Rows, panel};
pub(crate) use matrix::{GgmlRows, QuantMatrix, dequantise};
use mxfp4::Mxfp4;
pub(crate) use mxfp4::block_of_pairs;
use nibbles::{Nibbles, dot_nibbles, pack_nibble};
pub(crate) use q4_0::Q4_0;
pub(crate) use q4_1::Q4_1;
pub(crate) use q4_k::Q4K;
pub(crate) use q5_0::Q5_0;
pub(crate) use q5_1::Q5_1;
pub(crate) use q5_k::Q5K;
pub(crate) use q6_k::Q6K;
pub(crate) use q8_0::Q8_0;

/// Elements that share a scale.
pub(crate) const CELL: usize = 32;
/// Elements of one output that lie in one lane.
pub(crate) const QUAD: usize = 4;
/// Quads in a cell.
pub(crate) const QUADS: usize = CELL / QUAD;
/// Outputs whose cells lie side by side.
pub(crate) const GROUP: usize = 8;

/// Four neighbouring elements.
pub(crate) type Quad = [i8; QUAD];

/// A way to hold weights in a few bits. Values are ggml's, as candle writes them (`quantized::k_quants`) where it knows the format;
/// only the order in memory is ours.
pub(crate) trait Format: Copy + Debug + Send + Sync + 'static {
    /// [`Self::CELLS`] neighbouring cells of a group's outputs.
    type Slab: Pod + Debug + Send + Sync;
    /// Cells of one output in a slab; a row is padded with zeros to whole slabs.
    const CELLS: usize;
    /// The format's name.
    const KIND: QuantType;

    /// Puts one of ggml's blocks of one output where it belongs; `cell` is the block's first cell within the slab.
    fn pack(slab: &mut Self::Slab, cell: usize, output: usize, block: &[u8]);

    /// `sum` and the products of one cell of one output with `x`: this defines the result.
    fn add_cell(slab: &Self::Slab, cell: usize, output: usize, x: &Cell, sum: f32) -> f32;

    /// Adds the products of slab number `index` of a group with the cells of each row of `x` to `sums`, as
    /// [`Format::add_cell`] does.
    ///
    /// # Safety
    /// The processor must have AVX2, FMA and F16C, and for `VNNI` also AVX512-VNNI and AVX512-VL.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    unsafe fn add_avx2<const VNNI: bool, const R: usize>(
        slab: &Self::Slab,
        index: usize,
        x: &[&[Cell]; R],
        sums: &mut [std::arch::x86_64::__m256; R],
    );
}

/// Adds the products of a group's `slabs` with each row of `x` to `sums`, one cell after the other.
pub(super) fn add_slabs<F: Format, const R: usize>(slabs: &[F::Slab], x: [&[Cell]; R], sums: &mut [Lanes; R]) {
    for (x, sums) in x.iter().zip(sums) {
        for (slab, x) in slabs.iter().zip(x.chunks_exact(F::CELLS)) {
            for (cell, x) in x.iter().enumerate() {
                for (output, sum) in sums.iter_mut().enumerate() {
                    *sum = F::add_cell(slab, cell, output, x, *sum);
                }
            }
        }
    }
}

/// The little-endian f16 at `at`.
fn f16_at(bytes: &[u8], at: usize) -> half::f16 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests;
