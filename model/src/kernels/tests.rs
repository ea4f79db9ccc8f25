//! Every kernel gives the bits of the scalar one, and every tiling those of one row and one output.

use std::ops::Range;

use half::{bf16, f16};
use proptest::prelude::*;

use super::scalar::Scalar;
use super::{Columns, Element, Kernel, panel};
use crate::config::Activation;
use crate::products::products;
use crate::weights::{Floats, Matrix, Values};

/// Cases of each property: an interpreter takes a thousand times as long for one.
const CASES: u32 = if cfg!(miri) { 4 } else { 200 };

/// Shapes of products for [`products_have_one_value`]: every tile and every remainder also where they are small.
const SHAPES: [Range<usize>; 3] = if cfg!(miri) { [1..10, 1..36, 1..14] } else { [1..10, 1..70, 1..40] };

/// Scores and the width of values for [`elementwise_loops_have_one_value`].
const SCORES: Range<usize> = if cfg!(miri) { 1..34 } else { 1..100 };
const WIDTH: Range<usize> = if cfg!(miri) { 1..20 } else { 1..90 };

/// Floats of every kind: ordinary, huge, tiny, subnormal, zeros of both signs.
fn any_value() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -2.0f32..2.0,
        1 => prop::num::f32::ANY,
        1 => prop::sample::select(vec![0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 65504.0, f32::INFINITY]),
    ]
}

fn bits(values: &[f32]) -> Vec<u32> {
    let canonical = |value: &f32| if value.is_nan() { f32::NAN } else { *value };
    values.iter().map(|value| canonical(value).to_bits()).collect()
}

/// A product one output at a time, by the definition.
fn reference<E: Element>(x: &[f32], rows: usize, w: &[E], inner: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[E]| {
        let mut sums = [[0.0; 8]; 1];
        Scalar.dot_tile([x], [w], false, &mut sums, (0, 1));
        super::sum_lanes(&sums[0])
    };
    let row = |row: usize| w.chunks(inner).map(move |w| dot(&x[row * inner..][..inner], w));
    (0..rows).flat_map(row).collect()
}

fn check<E: Element>(x: &[f32], rows: usize, w: &[f32], inner: usize, values: impl Fn(Floats<E>) -> Values) {
    let w: Vec<E> = w.iter().map(|w| E::round(*w)).collect();
    let expected = bits(&reference(x, rows, &w, inner));
    let outputs = w.len() / inner;
    let matrix = Matrix { outputs, inner, values: values(Floats::owned(w.clone())) };
    let mut y = products(x, rows, &[&matrix, &matrix]);
    assert_eq!(bits(&y[..rows * outputs]), expected, "dispatched {rows}x{inner}x{outputs}");
    assert_eq!(bits(&y[rows * outputs..]), expected, "second {rows}x{inner}x{outputs}");
    y.truncate(rows * outputs);
    panel(Scalar, x, &w, inner, Columns::new(&mut y, rows));
    assert_eq!(bits(&y), expected, "scalar {rows}x{inner}x{outputs}");
    #[cfg(target_arch = "x86_64")]
    if let Some(kernel) = super::avx2::Avx2::detect() {
        for (kernel, what) in [(kernel, "newest"), (kernel.without_512_bits(), "without 512 bits")] {
            panel(kernel, x, &w, inner, Columns::new(&mut y, rows));
            assert_eq!(bits(&y), expected, "{what} {rows}x{inner}x{outputs}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn products_have_one_value(
        [rows, inner, outputs] in SHAPES,
        seed in prop::collection::vec(any_value(), 97),
    ) {
        let take = |count: usize, step: usize| -> Vec<f32> {
            (0..count).map(|i| seed[(i * step + i / 97) % 97]).collect()
        };
        let (x, w) = (take(rows * inner, 5), take(outputs * inner, 11));
        check::<f32>(&x, rows, &w, inner, Values::F32);
        check::<f16>(&x, rows, &w, inner, Values::F16);
        check::<bf16>(&x, rows, &w, inner, Values::Bf16);
    }

    #[test]
    fn elementwise_loops_have_one_value(
        scores in prop::collection::vec(any_value(), SCORES),
        up in prop::collection::vec(any_value(), 100),
        width in WIDTH,
    ) {
        super::with_kernel!(kernel => {
            let (mut fast, mut slow) = (scores.clone(), scores.clone());
            let max = Scalar.largest(&scores);
            prop_assert_eq!(bits(&[kernel.largest(&scores)]), bits(&[max]));
            let mut sums = [super::Lanes::default(); 2];
            // Piece by piece and at once.
            fast.chunks_mut(width.next_multiple_of(8)).for_each(|piece| kernel.soften(piece, max, 0.125, &mut sums[0]));
            Scalar.soften(&mut slow, max, 0.125, &mut sums[1]);
            prop_assert_eq!(bits(&fast), bits(&slow));
            prop_assert_eq!(bits(&sums[0]), bits(&sums[1]));
            for activation in [Activation::Silu, Activation::GeluTanh, Activation::ClampedSilu { alpha: 1.702, limit: 7.0 }] {
                let (mut fast, mut slow) = (scores.clone(), scores.clone());
                kernel.activate(activation, &mut fast, &up);
                Scalar.activate(activation, &mut slow, &up);
                prop_assert_eq!(bits(&fast), bits(&slow));
            }
            let (mut fast, mut slow) = (scores.clone(), scores.clone());
            kernel.cap(&mut fast, 0.25, 50.0);
            Scalar.cap(&mut slow, 0.25, 50.0);
            prop_assert_eq!(bits(&fast), bits(&slow));
            let values: Vec<bf16> = (0..scores.len() * width).map(|i| bf16::from_f32(up[i % 100])).collect();
            let (mut fast, mut slow) = (vec![0.5; width], vec![0.5; width]);
            kernel.weighted_sums([&scores], (&values, &values), &mut fast);
            Scalar.weighted_sums([&scores], (&values, &values), &mut slow);
            prop_assert_eq!(bits(&fast), bits(&slow));
            let weights = [&scores[..], &up[..scores.len()], &scores[..], &scores[..]];
            let (mut fast, mut slow) = (vec![0.5; 4 * width], vec![0.5; 4 * width]);
            kernel.weighted_sums(weights, (&values, &[]), &mut fast);
            Scalar.weighted_sums(weights, (&values, &[]), &mut slow);
            prop_assert_eq!(bits(&fast), bits(&slow));
            let eights: Vec<i8> = values.iter().map(|value| value.to_bits() as i8).collect();
            kernel.weighted_sums(weights, (&eights, &[]), &mut fast);
            Scalar.weighted_sums(weights, (&eights, &[]), &mut slow);
            prop_assert_eq!(bits(&fast), bits(&slow));
            let rows: Vec<&[f32]> = scores.chunks_exact(width).take(4).collect();
            if let [a, b, c, d] = rows[..] {
                let outputs = values.len() / width;
                let (mut fast, mut slow) = (vec![0.5; 5 * outputs], vec![0.5; 5 * outputs]);
                let place = (outputs / 2, outputs);
                kernel.short_dots::<_, 4, 2>([a, b, c, d], (&values, &values), &mut fast, place);
                Scalar.short_dots::<_, 4, 2>([a, b, c, d], (&values, &[]), &mut slow, place);
                prop_assert_eq!(bits(&fast), bits(&slow));
                kernel.short_dots::<_, 1, 8>([d], (&values, &[]), &mut fast, place);
                Scalar.short_dots::<_, 1, 8>([d], (&values, &[]), &mut slow, place);
                prop_assert_eq!(bits(&fast), bits(&slow));
                let eights: Vec<i8> = values.iter().map(|value| value.to_bits() as i8).collect();
                kernel.short_dots::<_, 4, 2>([a, b, c, d], (&eights, &eights), &mut fast, place);
                Scalar.short_dots::<_, 4, 2>([a, b, c, d], (&eights, &[]), &mut slow, place);
                prop_assert_eq!(bits(&fast), bits(&slow));
                kernel.short_dots::<_, 3, 2>([d, b, a], (&values, &[]), &mut fast, place);
                Scalar.short_dots::<_, 3, 2>([d, b, a], (&values, &[]), &mut slow, place);
                prop_assert_eq!(bits(&fast), bits(&slow));
            }
            let lanes: Vec<super::Lanes> = scores.iter().map(|score| std::array::from_fn(|i| score * up[i])).collect();
            let (mut fast, mut slow) = (vec![0.0; lanes.len()], vec![0.0; lanes.len()]);
            kernel.sum_all(&lanes, &mut fast);
            Scalar.sum_all(&lanes, &mut slow);
            prop_assert_eq!(bits(&fast), bits(&slow));
        });
    }
}

/// Long rows are worked on piece by piece, and wide products in panels on several threads.
#[test]
fn pieces_panels_and_threads_change_no_bit() {
    let value = |i: usize| ((i * 7919 % 2003) as f32 - 1000.0) / 500.0;
    // Rows that are no multiple of a tile's, pieces that are none of eight, outputs that are none of a strip's, and all that are.
    let shapes = [
        (1, 2500, 211),
        (5, 2500, 100),
        (13, 1031, 97),
        (64, 300, 64),
        (6, 1032, 40),
        (7, 520, 12),
        (8, 1100, 31),
        (17, 520, 20),
        (24, 264, 18),
        (25, 264, 18),
        (131, 520, 30),
        (12, 1024, 24),
    ];
    // Long enough for two pieces, and wide enough for two panels.
    let small = [(1, 264, 49), (5, 1032, 3), (9, 264, 25)];
    for (rows, inner, outputs) in if cfg!(miri) { &small[..] } else { &shapes } {
        let (rows, inner, outputs) = (*rows, *inner, *outputs);
        let x: Vec<f32> = (0..rows * inner).map(value).collect();
        let w: Vec<f32> = (0..outputs * inner).map(|i| value(i * 3 + 1)).collect();
        check::<f32>(&x, rows, &w, inner, Values::F32);
        check::<bf16>(&x, rows, &w, inner, Values::Bf16);
        check::<f16>(&x, rows, &w, inner, Values::F16);
    }
}
