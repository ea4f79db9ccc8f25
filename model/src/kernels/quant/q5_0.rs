//! Q5_0: 32 elements of five bits, 16 standing for zero, under one f16 scale.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::five::{Fives, elements};
use super::{Cell, Format, GROUP, QuantType, f16_at};

/// Cells in a slab: with four of them, slabs are a whole number of cache lines.
const CELLS: usize = 4;
/// What stands for zero.
const OFFSET: f32 = 16.0;

/// The format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Q5_0;

/// Four cells of eight outputs.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Slab {
    scales: [[f16; GROUP]; CELLS],
    fives: [Fives; CELLS],
}

impl Format for Q5_0 {
    type Slab = Slab;
    const CELLS: usize = CELLS;
    const KIND: QuantType = QuantType::Q5_0;

    /// A block is an f16 scale, four bytes of high bits and 16 of nibbles.
    fn pack(slab: &mut Slab, cell: usize, output: usize, block: &[u8]) {
        slab.scales[cell][output] = f16_at(block, 0);
        let high = [block[2], block[3], block[4], block[5]];
        elements(high, &block[6..]).for_each(|(element, bits)| slab.fives[cell].pack(output, element, bits));
    }

    fn add_cell(slab: &Slab, cell: usize, output: usize, x: &Cell, sum: f32) -> f32 {
        // Whole numbers below 2^24: exact.
        let centred = x.sum.mul_add(-OFFSET, slab.fives[cell].dot(output, x) as f32);
        (slab.scales[cell][output].to_f32() * x.scale).mul_add(centred, sum)
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
        use super::avx2::{add_dots, ask_ahead, cells_of, five_dots, multiples, scales};
        // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
        unsafe {
            let x = cells_of::<CELLS, R>(x, index);
            for cell in 0..CELLS {
                ask_ahead::<_, CELLS>(slab, cell);
                let start = multiples(&x, cell, -OFFSET);
                let dots = five_dots::<VNNI, CELLS, R>(&slab.fives[cell], &x, cell, start);
                add_dots(scales(&slab.scales[cell]), &dots, &x, cell, sums);
            }
        }
    }
}
