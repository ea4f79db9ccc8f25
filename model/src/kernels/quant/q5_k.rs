//! Q5_K: eight cells of five-bit elements under one f16 scale and one f16 minimum, which each cell multiplies as Q4_K's do.

use bytemuck::{Pod, Zeroable};

use super::five::Fives;
use super::q4_k::Factors;
use super::{CELL, Cell, Format, QuantType};

/// Cells in a slab, and in one of ggml's blocks.
const CELLS: usize = 8;

/// The format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Q5K;

/// Eight cells of eight outputs, in as many bits as ggml's.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Slab {
    factors: Factors,
    fives: [Fives; CELLS],
}

impl Format for Q5K {
    type Slab = Slab;
    const CELLS: usize = CELLS;
    const KIND: QuantType = QuantType::Q5K;

    /// A block is scale, minimum and factors as in Q4_K, 32 bytes of high bits (of cell `c` bit `c`), and 128 of nibbles as in
    /// Q4_K.
    fn pack(slab: &mut Slab, _cell: usize, output: usize, block: &[u8]) {
        let (factors, rest) = block.split_at(16);
        slab.factors.pack(output, factors);
        let (high, nibbles) = rest.split_at(CELL);
        for cell in 0..CELLS {
            let low = &nibbles[cell / 2 * CELL..][..CELL];
            for (element, (high, low)) in high.iter().zip(low).enumerate() {
                let bits = (low >> (4 * (cell % 2))) & 15 | (high >> cell & 1) << 4;
                slab.fives[cell].pack(output, element, bits);
            }
        }
    }

    fn add_cell(slab: &Slab, cell: usize, output: usize, x: &Cell, sum: f32) -> f32 {
        slab.factors.add(cell, output, slab.fives[cell].dot(output, x), x, sum)
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
        use super::avx2::{ask_ahead, cells_of, five_dots, zeros};
        // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
        unsafe {
            let x = cells_of::<CELLS, R>(x, index);
            for cell in 0..CELLS {
                ask_ahead::<_, CELLS>(slab, cell);
                let dots = five_dots::<VNNI, CELLS, R>(&slab.fives[cell], &x, cell, zeros::<R>());
                slab.factors.add_avx2(cell, &dots, &x, sums);
            }
        }
    }
}
