//! Q8_0: 32 signed bytes under one f16 scale.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::{Cell, Format, GROUP, QUAD, QUADS, Quad, QuantType, f16_at};

/// Cells in a slab: with four of them, slabs are a whole number of cache lines.
const CELLS: usize = 4;

/// The format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Q8_0;

/// Four cells of eight outputs.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Slab {
    scales: [[f16; GROUP]; CELLS],
    quads: [[[Quad; GROUP]; QUADS]; CELLS],
}

impl Format for Q8_0 {
    type Slab = Slab;
    const CELLS: usize = CELLS;
    const KIND: QuantType = QuantType::Q8_0;

    /// A block is an f16 scale and 32 bytes.
    fn pack(slab: &mut Slab, cell: usize, output: usize, block: &[u8]) {
        slab.scales[cell][output] = f16_at(block, 0);
        for (quads, from) in slab.quads[cell].iter_mut().zip(block[2..].as_chunks::<QUAD>().0) {
            quads[output] = bytemuck::cast(*from);
        }
    }

    fn add_cell(slab: &Slab, cell: usize, output: usize, x: &Cell, sum: f32) -> f32 {
        let dot: i32 = slab.quads[cell].iter().zip(&x.quads).map(|(quads, x)| dot(&quads[output], x)).sum();
        (slab.scales[cell][output].to_f32() * x.scale).mul_add(dot as f32, sum)
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
        use super::avx2::{add_dots, ask_ahead, cells_of, scales, signed_dots};
        // SAFETY: the caller has promised the features, and this is inlined where the compiler knows of them.
        unsafe {
            let x = cells_of::<CELLS, R>(x, index);
            for cell in 0..CELLS {
                ask_ahead::<_, CELLS>(slab, cell);
                let dots = signed_dots::<VNNI, CELLS, R>(&slab.quads[cell], &x, cell);
                add_dots(scales(&slab.scales[cell]), &dots, &x, cell, sums);
            }
        }
    }
}

fn dot(weights: &Quad, x: &Quad) -> i32 {
    weights.iter().zip(x).map(|(weight, x)| i32::from(*weight) * i32::from(*x)).sum()
}
