//! Every kernel and every tiling gives the bits that a format's definition gives one output at a time, and the definition
//! gives what candle makes of the same bytes.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::Device;
use candle_core::quantized::{QStorage, QTensor};
use proptest::prelude::*;

use super::matrix::Packed;
use super::*;
use crate::kernels::scalar::Scalar;
use crate::kernels::{Columns, with_kernel};

/// Cases of each property: an interpreter takes a thousand times as long for one.
const CASES: u32 = if cfg!(miri) { 2 } else { 100 };

/// Rows, inner and outputs of products: more than one slab of every format also where they are small.
const SHAPES: [Range<usize>; 3] = if cfg!(miri) { [1..10, 1..300, 1..18] } else { [1..10, 1..600, 1..30] };

fn any_value() -> impl Strategy<Value = f32> {
    prop_oneof![
        12 => -2.0f32..2.0,
        1 => prop::sample::select(vec![0.0, -0.0, 1e-40, 1e-30, -7e4, 3e4, 65504.0]),
    ]
}

fn any_activation() -> impl Strategy<Value = f32> {
    prop_oneof![
        40 => -2.0f32..2.0,
        1 => prop::num::f32::ANY,
        1 => prop::sample::select(vec![0.0, 1e-40, -3e38, f32::INFINITY]),
    ]
}

fn bits(values: &[f32]) -> Vec<u32> {
    let canonical = |value: &f32| if value.is_nan() { f32::NAN } else { *value };
    values.iter().map(|value| canonical(value).to_bits()).collect()
}

fn cells_of_row(x: &[f32], count: usize) -> Vec<Cell> {
    let mut cells = vec![Cell::default(); count];
    quantise_row(x, &mut cells);
    cells
}

/// One output of one row, by the definition.
fn reference<F: Format>(packed: &Packed<F>, x: &[f32], output: usize) -> f32 {
    let (slabs, group_slabs) = packed.parts();
    let slabs = &slabs[output / GROUP * group_slabs..][..group_slabs];
    let cells = cells_of_row(x, group_slabs * F::CELLS);
    cells
        .iter()
        .enumerate()
        .fold(0.0, |sum, (cell, x)| F::add_cell(&slabs[cell / F::CELLS], cell % F::CELLS, output % GROUP, x, sum))
}

fn check<F: Format>(x: &[f32], rows: usize, w: &[f32], inner: usize) {
    let outputs = w.len() / inner;
    let mut ggml = Vec::new();
    let packed = Packed::<F>::quantise(w, inner, &mut |bytes| ggml.extend_from_slice(bytes)).unwrap();
    let row = |row: usize| &x[row * inner..][..inner];
    let expected: Vec<f32> =
        (0..rows).flat_map(|r| (0..outputs).map(move |o| (r, o))).map(|(r, o)| reference(&packed, row(r), o)).collect();
    let (slabs, group_slabs) = packed.parts();
    let quantised = Rows::new(x, inner);
    let mut y = vec![f32::NAN; rows * outputs];
    with_kernel!(kernel => panel::<_, F>(kernel, &quantised, slabs, group_slabs, Columns::new(&mut y, rows)));
    assert_eq!(bits(&y), bits(&expected), "{:?} {rows}x{inner}x{outputs}", F::KIND);
    #[cfg(target_arch = "x86_64")]
    if let Some(kernel) = crate::kernels::avx2::Avx2::detect() {
        y.fill(f32::NAN);
        panel::<_, F>(kernel.without_512_bits(), &quantised, slabs, group_slabs, Columns::new(&mut y, rows));
        assert_eq!(bits(&y), bits(&expected), "AVX2 {:?} {rows}x{inner}x{outputs}", F::KIND);
    }
    y.fill(f32::NAN);
    panel::<_, F>(Scalar, &quantised, slabs, group_slabs, Columns::new(&mut y, rows));
    assert_eq!(bits(&y), bits(&expected), "scalar {:?} {rows}x{inner}x{outputs}", F::KIND);
    against_candle::<F>(x, &ggml, inner, &y);
}

/// Within rounding, the products are those of the weights that candle reads out of the same bytes.
fn against_candle<F: Format>(x: &[f32], ggml: &[u8], inner: usize, y: &[f32]) {
    if x.iter().any(|x| !x.is_finite() || x.abs() > 1e30) {
        return;
    }
    let padded = inner.next_multiple_of(F::KIND.block_elements());
    let outputs = y.len() / (x.len() / inner);
    let weights = match F::KIND.ggml() {
        Some(dtype) => {
            let storage = QStorage::from_data(Cow::Borrowed(ggml), &Device::Cpu, dtype).unwrap();
            let weights = QTensor::new(storage, (outputs, padded)).unwrap().dequantize(&Device::Cpu).unwrap();
            weights.to_vec2::<f32>().unwrap()
        }
        None => dequantise(F::KIND, ggml).unwrap().chunks(padded).map(<[f32]>::to_vec).collect(),
    };
    for (x, y) in x.chunks(inner).zip(y.chunks(outputs)) {
        let cells = cells_of_row(x, padded.div_ceil(CELL));
        let x: Vec<f64> = cells
            .iter()
            .flat_map(|cell| cell.quads.iter().flatten().map(|quant| f64::from(*quant) * f64::from(cell.scale)))
            .collect();
        for (weights, y) in weights.iter().zip(y) {
            let products = || weights.iter().zip(&x).map(|(weight, x)| f64::from(*weight) * x);
            let (sum, size): (f64, f64) = (products().sum(), products().map(f64::abs).sum());
            if !size.is_finite() {
                // A minimum beyond 16 bits is infinite, and what it gives must not look sound.
                assert!(!y.is_finite(), "{:?} {y}", F::KIND);
                continue;
            }
            // Q4_K's minimum and its products may be far larger than what is left of them. A wrong bit is a hundredth or more.
            assert!((f64::from(*y) - sum).abs() <= 1e-3 * size.max(1e-30) + 1e-3, "{:?} {y} {sum} {size}", F::KIND);
        }
    }
}

fn check_all(x: &[f32], rows: usize, w: &[f32], inner: usize) {
    check::<Q8_0>(x, rows, w, inner);
    check::<Q4_0>(x, rows, w, inner);
    check::<Q4_1>(x, rows, w, inner);
    check::<Q5_0>(x, rows, w, inner);
    check::<Q5_1>(x, rows, w, inner);
    check::<Q4K>(x, rows, w, inner);
    check::<Q5K>(x, rows, w, inner);
    check::<Q6K>(x, rows, w, inner);
    check::<Mxfp4>(x, rows, w, inner);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn products_have_one_value(
        [rows, inner, outputs] in SHAPES,
        weights in prop::collection::vec(any_value(), 997),
        activations in prop::collection::vec(any_activation(), 499),
    ) {
        let x: Vec<f32> = (0..rows * inner).map(|i| activations[i * 5 % 499]).collect();
        let w: Vec<f32> = (0..outputs * inner).map(|i| weights[i * 11 % 997]).collect();
        check_all(&x, rows, &w, inner);
    }

    /// Whatever the bytes: files come from strangers.
    #[test]
    fn any_bytes_have_one_value(bytes in prop::collection::vec(any::<u8>(), 8 * 210), seed in any::<u32>()) {
        fn any_slab<F: Format>(bytes: &[u8], x: &[Cell]) {
            let mut slab: F::Slab = bytemuck::Zeroable::zeroed();
            let size = F::KIND.block_bytes();
            let blocks = F::CELLS * CELL / F::KIND.block_elements();
            for (index, block) in bytes.chunks_exact(size).take(8 * blocks).enumerate() {
                F::pack(&mut slab, index / 8 * F::KIND.block_elements() / CELL, index % 8, block);
            }
            let slabs = [slab];
            let x = [&x[..F::CELLS]; 2];
            let (mut fast, mut slow) = ([[0.5; 8]; 2], [[0.5; 8]; 2]);
            with_kernel!(kernel => crate::kernels::Kernel::add_slabs::<F, 2>(kernel, &slabs, x, &mut fast));
            add_slabs::<F, 2>(&slabs, x, &mut slow);
            #[cfg(target_arch = "x86_64")]
            if let Some(kernel) = crate::kernels::avx2::Avx2::detect() {
                let mut older = [[0.5; 8]; 2];
                crate::kernels::Kernel::add_slabs::<F, 2>(kernel.without_512_bits(), &slabs, x, &mut older);
                assert_eq!(bits(older.as_flattened()), bits(slow.as_flattened()), "AVX2 {:?}", F::KIND);
            }
            assert_eq!(bits(&fast[0]), bits(&slow[0]), "{:?}", F::KIND);
            assert_eq!(bits(&fast[1]), bits(&slow[1]), "{:?}", F::KIND);
        }
        // Activations that are as large as they can be give the largest sums.
        let sign = |i: u32| if seed.rotate_left(i) & 1 == 0 { 127.0 } else { -127.0 };
        let x: Vec<f32> = (0..256).map(sign).collect();
        let cells = cells_of_row(&x, 8);
        any_slab::<Q8_0>(&bytes, &cells);
        any_slab::<Q4_0>(&bytes, &cells);
        any_slab::<Q4_1>(&bytes, &cells);
        any_slab::<Q5_0>(&bytes, &cells);
        any_slab::<Q5_1>(&bytes, &cells);
        any_slab::<Q4K>(&bytes, &cells);
        any_slab::<Q5K>(&bytes, &cells);
        any_slab::<Q6K>(&bytes, &cells);
        any_slab::<Mxfp4>(&bytes, &cells);
    }
}

/// The kernels' own way of quantising a row is the plain one.
#[test]
fn rows_have_one_value() {
    let x: Vec<f32> = (0..1000).map(|i| ((i * 7919 % 2003) as f32 - 1000.0) * 0.017).collect();
    for inner in [1, 31, 32, 33, 250, 1000] {
        let plain = cells_of_row(&x[..inner], 40);
        let mut fast = vec![Cell::default(); 40];
        with_kernel!(kernel => crate::kernels::Kernel::quantise_row(kernel, &x[..inner], &mut fast));
        for (fast, plain) in fast.iter().zip(&plain) {
            assert_eq!(fast.quads, plain.quads);
            assert_eq!(bits(&[fast.scale, fast.sum]), bits(&[plain.scale, plain.sum]));
        }
    }
}

/// Long rows are worked on piece by piece.
#[test]
fn pieces_change_no_bit() {
    let value = |i: usize| ((i * 7919 % 2003) as f32 - 1000.0) / 500.0;
    let shapes = [(1, 5000, 17), (7, 5000, 16), (64, 2100, 9)];
    let small = [(1, 2100, 9), (9, 2100, 1)];
    for (rows, inner, outputs) in if cfg!(miri) { &small[..] } else { &shapes } {
        let (rows, inner, outputs) = (*rows, *inner, *outputs);
        let x: Vec<f32> = (0..rows * inner).map(value).collect();
        let w: Vec<f32> = (0..outputs * inner).map(|i| value(i * 3 + 1)).collect();
        check_all(&x, rows, &w, inner);
    }
}
