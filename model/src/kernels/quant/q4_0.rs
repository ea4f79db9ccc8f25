//! Q4_0: 32 nibbles, eight standing for zero, under one f16 scale.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::{CELL, Cell, Format, GROUP, Nibbles, QuantType, dot_nibbles, f16_at, pack_nibble};

/// Cells in a slab: with four of them, slabs are a whole number of cache lines.
const CELLS: usize = 4;
/// The nibble that stands for zero.
const OFFSET: f32 = 8.0;

/// The format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Q4_0;

/// Four cells of eight outputs.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Slab {
    scales: [[f16; GROUP]; CELLS],
    nibbles: [Nibbles; CELLS],
}

impl Format for Q4_0 {
    type Slab = Slab;
    const CELLS: usize = CELLS;
    const KIND: QuantType = QuantType::Q4_0;

    /// A block is an f16 scale and 16 bytes: elements 0 to 15 in the low nibbles, 16 to 31 in the high ones.
    fn pack(slab: &mut Slab, cell: usize, output: usize, block: &[u8]) {
        slab.scales[cell][output] = f16_at(block, 0);
        for (element, byte) in block[2..].iter().enumerate() {
            pack_nibble(&mut slab.nibbles[cell], output, element, byte & 15);
            pack_nibble(&mut slab.nibbles[cell], output, element + CELL / 2, byte >> 4);
        }
    }

    fn add_cell(slab: &Slab, cell: usize, output: usize, x: &Cell, sum: f32) -> f32 {
        let dot = dot_nibbles(&slab.nibbles[cell], output, x);
        // Whole numbers below 2^24: exact.
        let centred = x.sum.mul_add(-OFFSET, dot as f32);
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
        use super::avx2::{add_dots, ask_ahead, cells_of, multiples, nibble_dots, scales};
        // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
        unsafe {
            let x = cells_of::<CELLS, R>(x, index);
            for cell in 0..CELLS {
                ask_ahead::<_, CELLS>(slab, cell);
                let start = multiples(&x, cell, -OFFSET);
                let dots = nibble_dots::<VNNI, CELLS, R>(&slab.nibbles[cell], &x, cell, start);
                add_dots(scales(&slab.scales[cell]), &dots, &x, cell, sums);
            }
        }
    }
}
