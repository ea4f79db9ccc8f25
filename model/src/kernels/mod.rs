//! The inner loops, in one order of additions whatever the machine.
//!
//! A [`Kernel`] is one implementation: `Scalar` runs everywhere, `Avx2` where the processor has AVX2, FMA and F16C.
//! Both give the same bits, since both keep [`LANES`] partial sums, fuse multiply and add, and sum the lanes in one
//! order. What is built on them ([`matmul()`], attention) only decides which rows and outputs are computed where.

mod columns;
mod element;
mod matmul;
pub(crate) mod peak;
mod portable;
pub(crate) mod quant;
pub(crate) mod scalar;
mod slab;
// Miri knows no such call.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) mod turns;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
mod strip;
#[cfg(target_arch = "x86_64")]
mod wide;

use crate::config::Activation;
pub(crate) use columns::Columns;
pub(crate) use element::{Element, Stored};
pub(crate) use matmul::{PANEL_STEP, panel};
use quant::{Cell, Format};
pub(crate) use quant::{GgmlRows, QuantMatrix, QuantType, block_of_pairs, dequantise};
pub(crate) use slab::{Piece, Slabs};

/// Partial sums of one dot product.
pub(crate) const LANES: usize = 8;

/// The partial sums of one dot product.
pub(crate) type Lanes = [f32; LANES];

/// The inner loops of one instruction set. Implementations differ in speed only, never in a bit of the result.
pub(crate) trait Kernel: Copy + Send + Sync {
    /// Adds the products of every row of `x` with every weight row of `w` to `sums`: those of row `r` lie at
    /// `sums[first + r * stride..]`. Element `i` of a row goes to lane `i % 8` in order of `i`; a last piece shorter than 8 is
    /// padded with zeros. All rows have one length. With `ask`, memory is meanwhile asked for the weights that follow, as if those
    /// of the tile lay one behind the other.
    fn dot_tile<E: Stored, const R: usize, const O: usize>(
        self,
        x: [&[f32]; R],
        w: [&[E]; O],
        ask: bool,
        sums: &mut [Lanes],
        first_and_stride: (usize, usize),
    );

    /// Wider registers than [`Kernel::dot_tile`] uses, if the processor has any.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn wide(self) -> Option<wide::Wide> {
        None
    }

    /// The sum of each of `lanes`, in the one order of [`sum_lanes`].
    fn sum_all(self, lanes: &[Lanes], sums: &mut [f32]);

    /// The products of `R` short rows with all of `w`, `(outputs, inner)`, while memory is asked for `next`, which is read
    /// after it. Row `r` of them goes to `y[r * stride + first..]`; `O` outputs are computed at a time.
    fn short_dots<E: Stored, const R: usize, const O: usize>(
        self,
        x: [&[f32]; R],
        w_and_next: (&[E], &[E]),
        y: &mut [f32],
        first_and_stride: (usize, usize),
    );

    /// Adds `weights[p] * values[p]` to each row's sum, in order of `p`, while memory is asked for `next`, which is read after
    /// `values`; these are `(positions, width)`, `sums` `(R, width)`. Every row has a weight for every position.
    fn weighted_sums<E: Stored, const R: usize>(
        self,
        weights: [&[f32]; R],
        values_and_next: (&[E], &[E]),
        sums: &mut [f32],
    );

    /// The largest score; minus infinity of none.
    fn largest(self, scores: &[f32]) -> f32;

    /// Replaces each score by `exp(scale * (score - max))` and adds number `i` of them to lane `i % 8` of `sums`. A row of
    /// scores may so be softened piece by piece, all but the last of which have a multiple of eight.
    fn soften(self, scores: &mut [f32], max: f32, scale: f32, sums: &mut Lanes);

    /// Replaces each element of `gate` by what `activation` makes of it and `up`.
    fn activate(self, activation: Activation, gate: &mut [f32], up: &[f32]);

    /// Replaces each score `s` by `cap * tanh(scale * s / cap)`.
    fn cap(self, scores: &mut [f32], scale: f32, cap: f32);

    /// Quantises a row cell by cell; what the row lacks of `cells` is zero.
    fn quantise_row(self, x: &[f32], cells: &mut [Cell]);

    /// Adds the products of a group's `slabs` with each row of `x` to `sums`, one for each of the group's outputs.
    fn add_slabs<F: Format, const R: usize>(self, slabs: &[F::Slab], x: [&[Cell]; R], sums: &mut [Lanes; R]);
}

/// Runs `$body` with `$kernel` bound to the fastest kernel of this processor.
macro_rules! with_kernel {
    ($kernel:ident => $body:expr) => {{
        #[cfg(target_arch = "x86_64")]
        if let Some($kernel) = $crate::kernels::avx2::Avx2::detect() {
            $body
        } else {
            let $kernel = $crate::kernels::scalar::Scalar;
            $body
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let $kernel = $crate::kernels::scalar::Scalar;
            $body
        }
    }};
}
pub(crate) use with_kernel;

/// The one order in which the lanes of a dot product are summed.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: &Lanes) -> f32 {
    let [a, b, c, d, e, f, g, h] = *lanes;
    let (even, odd) = ((a + e) + (c + g), (b + f) + (d + h));
    even + odd
}

#[cfg(test)]
mod tests;
