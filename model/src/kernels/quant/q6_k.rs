//! Q6_K: eight cells of six-bit elements, 32 standing for zero, under one f16 scale, which each half of a cell multiplies by a
//! signed byte of its own.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::nibbles::nibble;
use super::{CELL, Cell, Format, GROUP, Nibbles, QUAD, QUADS, QuantType, f16_at, pack_nibble};

/// Cells in a slab, and in one of ggml's blocks.
const CELLS: usize = 8;
/// Elements under one signed byte.
const HALF: usize = CELL / 2;
/// Quads under one signed byte.
const HALF_QUADS: usize = QUADS / 2;
/// What stands for zero.
const OFFSET: i32 = 32;

/// The format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Q6K;

/// Eight cells of eight outputs.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Slab {
    scale: [f16; GROUP],
    /// For each half of a cell and each output.
    factors: [[[i8; GROUP]; 2]; CELLS],
    /// The low four bits of the elements.
    nibbles: [Nibbles; CELLS],
    /// The high two: byte `(half, output, i)` holds those of element `i` of the half's four quads, the first lowest.
    high: [[[[u8; QUAD]; GROUP]; 2]; CELLS],
}

impl Slab {
    /// An element, as it was before its scales.
    fn element(&self, cell: usize, output: usize, element: usize) -> i32 {
        let (half, quad) = (element / HALF, element / QUAD % HALF_QUADS);
        let high = (self.high[cell][half][output][element % QUAD] >> (2 * quad)) & 3;
        i32::from(nibble(&self.nibbles[cell], output, element) | high << 4) - OFFSET
    }
}

impl Format for Q6K {
    type Slab = Slab;
    const CELLS: usize = CELLS;
    const KIND: QuantType = QuantType::Q6K;

    /// A block is 128 bytes of low nibbles, 64 of high bit pairs, 16 factors and the scale. Of each 128 elements, number
    /// `32 * j + l` has its nibble in byte `l` (`32 + l` for odd `j`) of 64, high for `j >= 2`, and its pair `j` in byte `l`.
    fn pack(slab: &mut Slab, _cell: usize, output: usize, block: &[u8]) {
        let (low, rest) = block.split_at(128);
        let (high, rest) = rest.split_at(64);
        slab.scale[output] = f16_at(rest, 16);
        for cell in 0..CELLS {
            let (part, j) = (cell / 4, cell % 4);
            for half in 0..2 {
                slab.factors[cell][half][output] = rest[2 * cell + half] as i8;
            }
            for element in 0..CELL {
                let nibble = low[64 * part + 32 * (j % 2) + element] >> (4 * (j / 2)) & 15;
                pack_nibble(&mut slab.nibbles[cell], output, element, nibble);
                let pair = high[32 * part + element] >> (2 * j) & 3;
                let place = &mut slab.high[cell][element / HALF][output][element % QUAD];
                *place |= pair << (2 * (element / QUAD % HALF_QUADS));
            }
        }
    }

    fn add_cell(slab: &Slab, cell: usize, output: usize, x: &Cell, sum: f32) -> f32 {
        let product = |(element, x): (usize, &i8)| {
            let factor = i32::from(slab.factors[cell][element / HALF][output]);
            factor * slab.element(cell, output, element) * i32::from(*x)
        };
        let dot: i32 = x.quads.iter().flatten().enumerate().map(product).sum();
        (slab.scale[output].to_f32() * x.scale).mul_add(dot as f32, sum)
    }

    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, clippy::needless_range_loop)]
    #[inline(always)]
    unsafe fn add_avx2<const VNNI: bool, const R: usize>(
        slab: &Slab,
        index: usize,
        x: &[&[Cell]; R],
        sums: &mut [std::arch::x86_64::__m256; R],
    ) {
        use std::arch::x86_64::*;

        use super::avx2::{add_dots, ask_ahead, cells_of, load, pair_factors, scales, signed_products, zeros};
        // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
        unsafe {
            let x = cells_of::<CELLS, R>(x, index);
            let scale = scales(&slab.scale);
            let (low_mask, high_mask) = (_mm256_set1_epi8(15), _mm256_set1_epi8(48));
            let offset = _mm256_set1_epi8(OFFSET as i8);
            for cell in 0..CELLS {
                ask_ahead::<_, CELLS>(slab, cell);
                let mut dots = zeros::<R>();
                for half in 0..2 {
                    // At most 4 * 2 * 32 * 127 in 16 bits: exact.
                    let mut products = zeros::<R>();
                    let high = load(&slab.high[cell][half]);
                    for quad in 0..HALF_QUADS {
                        let low = load(&slab.nibbles[cell][half * 2 + quad / 2]);
                        let low = if quad % 2 == 0 { low } else { _mm256_srli_epi16::<4>(low) };
                        let high = match quad {
                            0 => _mm256_slli_epi16::<4>(high),
                            1 => _mm256_slli_epi16::<2>(high),
                            2 => high,
                            _ => _mm256_srli_epi16::<2>(high),
                        };
                        let bits = _mm256_or_si256(_mm256_and_si256(low, low_mask), _mm256_and_si256(high, high_mask));
                        let weights = _mm256_sub_epi8(bits, offset);
                        let magnitudes = _mm256_abs_epi8(weights);
                        for row in 0..R {
                            let x = &x[row][cell].quads[half * HALF_QUADS + quad];
                            products[row] = _mm256_add_epi16(products[row], signed_products(weights, magnitudes, x));
                        }
                    }
                    let factors = pair_factors(&slab.factors[cell][half]);
                    for row in 0..R {
                        dots[row] = _mm256_add_epi32(dots[row], _mm256_madd_epi16(products[row], factors));
                    }
                }
                add_dots(scale, &dots, &x, cell, sums);
            }
        }
    }
}
