//! Q4_K: eight cells of nibbles under one f16 scale and one f16 minimum, which each cell multiplies by six bits of its own.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::{CELL, Cell, Format, GROUP, Nibbles, QuantType, dot_nibbles, f16_at, pack_nibble};

/// Cells in a slab, and in one of ggml's blocks.
const CELLS: usize = 8;
/// The low six bits of each of eight bytes.
const SIX_BITS: u64 = 0x3F3F_3F3F_3F3F_3F3F;
/// The low two bits of each of eight bytes.
const TWO_BITS: u64 = 0x0303_0303_0303_0303;
/// The low four bits of each of eight bytes.
const FOUR_BITS: u64 = 0x0F0F_0F0F_0F0F_0F0F;

/// The format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Q4K;

/// Eight cells of eight outputs, in as many bits as ggml's.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Slab {
    factors: Factors,
    nibbles: [Nibbles; CELLS],
}

/// What a slab's cells are multiplied by, and what is taken off: Q5_K's are the same.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Factors {
    scale: [f16; GROUP],
    minimum: [f16; GROUP],
    /// For each cell and output, the cell's scale in the low six bits, and the low two bits of its minimum.
    factors: [[u8; GROUP]; CELLS],
    /// The other four bits of the minimum: of cell `c` in the low nibbles, of cell `c + 4` in the high ones.
    minima: [[u8; GROUP]; CELLS / 2],
}

impl Factors {
    /// Of one output, out of the first 16 bytes of its block: scale, minimum and 12 bytes of factors.
    pub(super) fn pack(&mut self, output: usize, block: &[u8]) {
        self.scale[output] = f16_at(block, 0);
        self.minimum[output] = f16_at(block, 2);
        for cell in 0..CELLS {
            let (scale, minimum) = six_bits(&block[4..], cell);
            self.factors[cell][output] = scale | minimum << 6;
            self.minima[cell % (CELLS / 2)][output] |= (minimum >> 2) << (4 * (cell / (CELLS / 2)));
        }
    }

    /// The six-bit scales and minima of a cell, one byte for each output.
    #[inline(always)]
    fn of(&self, cell: usize) -> (u64, u64) {
        let factors = u64::from_le_bytes(self.factors[cell]);
        let minima = u64::from_le_bytes(self.minima[cell % (CELLS / 2)]) >> (4 * (cell / (CELLS / 2)));
        (factors & SIX_BITS, ((factors >> 6) & TWO_BITS) | ((minima & FOUR_BITS) << 2))
    }

    /// `sum` and one cell of one output, whose elements' products with `x` add up to `dot`.
    pub(super) fn add(&self, cell: usize, output: usize, dot: i32, x: &Cell, sum: f32) -> f32 {
        let (scales, minima) = self.of(cell);
        let byte = |bytes: u64| f32::from(bytes.to_le_bytes()[output]);
        let scale = self.scale[output].to_f32() * byte(scales);
        let minimum = self.minimum[output].to_f32() * byte(minima) * x.sum;
        x.scale.mul_add(scale.mul_add(dot as f32, -minimum), sum)
    }

    /// [`Factors::add`] for eight outputs and each row.
    #[cfg(target_arch = "x86_64")]
    #[allow(clippy::needless_range_loop)]
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn add_avx2<const R: usize>(
        &self,
        cell: usize,
        dots: &[std::arch::x86_64::__m256i; R],
        x: &[&[Cell; CELLS]; R],
        sums: &mut [std::arch::x86_64::__m256; R],
    ) {
        use std::arch::x86_64::*;

        use super::avx2::{bytes_to_floats, scales};
        let (scale, minimum) = (scales(&self.scale), scales(&self.minimum));
        let (cell_scales, cell_minima) = self.of(cell);
        let scale = _mm256_mul_ps(scale, bytes_to_floats(cell_scales));
        let minimum = _mm256_mul_ps(minimum, bytes_to_floats(cell_minima));
        for row in 0..R {
            let minimum = _mm256_mul_ps(minimum, _mm256_set1_ps(x[row][cell].sum));
            let value = _mm256_fmsub_ps(scale, _mm256_cvtepi32_ps(dots[row]), minimum);
            sums[row] = _mm256_fmadd_ps(_mm256_set1_ps(x[row][cell].scale), value, sums[row]);
        }
    }
}

impl Format for Q4K {
    type Slab = Slab;
    const CELLS: usize = CELLS;
    const KIND: QuantType = QuantType::Q4K;

    /// A block is scale and minimum, 12 bytes of factors, and 128 of nibbles: for each pair of cells 32 bytes, the first in
    /// the low nibbles.
    fn pack(slab: &mut Slab, _cell: usize, output: usize, block: &[u8]) {
        let (factors, nibbles) = block.split_at(16);
        slab.factors.pack(output, factors);
        for cell in 0..CELLS {
            for (element, byte) in nibbles[cell / 2 * CELL..][..CELL].iter().enumerate() {
                pack_nibble(&mut slab.nibbles[cell], output, element, (byte >> (4 * (cell % 2))) & 15);
            }
        }
    }

    fn add_cell(slab: &Slab, cell: usize, output: usize, x: &Cell, sum: f32) -> f32 {
        slab.factors.add(cell, output, dot_nibbles(&slab.nibbles[cell], output, x), x, sum)
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
        use super::avx2::{ask_ahead, cells_of, nibble_dots, zeros};
        // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
        unsafe {
            let x = cells_of::<CELLS, R>(x, index);
            for cell in 0..CELLS {
                ask_ahead::<_, CELLS>(slab, cell);
                let dots = nibble_dots::<VNNI, CELLS, R>(&slab.nibbles[cell], &x, cell, zeros::<R>());
                slab.factors.add_avx2(cell, &dots, &x, sums);
            }
        }
    }
}

/// Scale and minimum of a cell out of ggml's 12 bytes (`get_scale_min_k4`).
fn six_bits(factors: &[u8], cell: usize) -> (u8, u8) {
    if cell < 4 {
        return (factors[cell] & 63, factors[cell + 4] & 63);
    }
    let (low, scale_high, minimum_high) = (factors[cell + 4], factors[cell - 4] >> 6, factors[cell] >> 6);
    ((low & 15) | scale_high << 4, (low >> 4) | minimum_high << 4)
}
