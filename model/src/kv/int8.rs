//! Keys and values in eight bits.

/// The largest magnitude of an element.
const MOST: f32 = 127.0;
/// Adding 1.5 * 2^23 to a small float rounds it to the nearest integer, ties to even, kept in the sum's low bits.
const ROUND: f32 = 12_582_912.0;

/// Rounds `from` to `to * scale` and returns the scale, which depends on nothing but `from`: the largest magnitude by 127,
/// or NaN if any element is NaN or infinite, so that no such key or value looks sound.
pub(crate) fn quantise(from: &[f32], to: &mut [i8]) -> f32 {
    let larger = |most: f32, value: &f32| if value.abs() > most { value.abs() } else { most };
    let scale = from.iter().fold(0.0, larger) / MOST;
    // Of magnitudes too small for a reciprocal nothing is left.
    let inverse = if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    for (to, from) in to.iter_mut().zip(from) {
        // Comparisons in this order make 127 of NaN.
        let value = if from * inverse < MOST { from * inverse } else { MOST };
        let value = if value > -MOST { value } else { -MOST };
        *to = (value + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i8;
    }
    match from.iter().all(|value| value.is_finite()) {
        true => scale,
        false => f32::NAN,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_are_rounded_to_the_nearest_of_255(
            values in prop::collection::vec(-3.0f32..3.0, 1..80),
            exponent in -30i32..30,
        ) {
            let values: Vec<f32> = values.into_iter().map(|value| value * (exponent as f32).exp2()).collect();
            let mut rounded = vec![0; values.len()];
            let scale = quantise(&values, &mut rounded);
            for (value, rounded) in values.iter().zip(&rounded) {
                prop_assert!((f32::from(*rounded) * scale - value).abs() <= scale * 0.5001, "{value} {rounded} {scale}");
            }
            prop_assert!(values.iter().all(|value| *value == 0.0) || rounded.iter().any(|value| value.abs() == 127));
        }
    }

    #[test]
    fn what_is_no_number_spoils_its_run_and_tiny_ones_are_zero() {
        let mut to = [1; 3];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(quantise(&[1.0, bad, -2.0], &mut to).is_nan());
        }
        assert!(quantise(&[1e-40, -1e-39, 0.0], &mut to) < 1e-38);
        assert_eq!(to, [0, 0, 0]);
        assert_eq!(quantise(&[0.0; 3], &mut to), 0.0);
        assert_eq!(to, [0, 0, 0]);
    }
}
