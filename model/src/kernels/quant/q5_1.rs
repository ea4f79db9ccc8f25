//! Q5_1: 32 elements of five bits under one f16 scale, above one f16 minimum.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::five::{Fives, elements};
use super::{Cell, Format, GROUP, QuantType, f16_at};

/// Cells in a slab: with four of them, slabs are a whole number of cache lines.
const CELLS: usize = 4;

/// The format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Q5_1;

/// Four cells of eight outputs.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Slab {
    scales: [[f16; GROUP]; CELLS],
    minima: [[f16; GROUP]; CELLS],
    fives: [Fives; CELLS],
}

impl Format for Q5_1 {
    type Slab = Slab;
    const CELLS: usize = CELLS;
    const KIND: QuantType = QuantType::Q5_1;

    /// A block is an f16 scale, an f16 minimum, four bytes of high bits and 16 of nibbles.
    fn pack(slab: &mut Slab, cell: usize, output: usize, block: &[u8]) {
        slab.scales[cell][output] = f16_at(block, 0);
        slab.minima[cell][output] = f16_at(block, 2);
        let high = [block[4], block[5], block[6], block[7]];
        elements(high, &block[8..]).for_each(|(element, bits)| slab.fives[cell].pack(output, element, bits));
    }

    fn add_cell(slab: &Slab, cell: usize, output: usize, x: &Cell, sum: f32) -> f32 {
        let dot = slab.fives[cell].dot(output, x) as f32;
        let minimum = slab.minima[cell][output].to_f32() * x.sum;
        x.scale.mul_add(slab.scales[cell][output].to_f32().mul_add(dot, minimum), sum)
    }

    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn add_avx2<const VNNI: bool, const R: usize>(
        slab: &Slab,
        index: usize,
        x: &[&[Cell]; R],
        sums: &mut [std::arch::x86_64::__m256; R],
    ) {
        use super::avx2::{add_above, ask_ahead, cells_of, five_dots, scales, zeros};
        // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
        unsafe {
            let x = cells_of::<CELLS, R>(x, index);
            for cell in 0..CELLS {
                ask_ahead::<_, CELLS>(slab, cell);
                let dots = five_dots::<VNNI, CELLS, R>(&slab.fives[cell], &x, cell, zeros::<R>());
                add_above((scales(&slab.scales[cell]), scales(&slab.minima[cell])), &dots, &x, cell, sums);
            }
        }
    }
}
