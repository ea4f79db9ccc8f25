//! Round numbers along an axis.

/// The widest step among 1, 2, 5 times a power of ten with which at least `least` steps reach `end`.
pub(super) fn step(end: f64, least: f64) -> f64 {
    if !(end.is_finite() && end > 0.0) {
        return 1.0;
    }
    let rough = end / least;
    let power = 10f64.powf(rough.log10().floor());
    let times = [5.0, 2.0, 1.0].into_iter().find(|times| times * power <= rough * (1.0 + 1e-9)).unwrap_or(1.0);
    times * power
}

/// The multiples of `step` from 0 up to `end`.
pub(super) fn ticks(end: f64, step: f64) -> impl Iterator<Item = f64> {
    /// No axis is readable with more.
    const MOST: usize = 100;
    (0..MOST).map(move |at| at as f64 * step).take_while(move |tick| *tick <= end * (1.0 + 1e-9))
}

/// A tick as it is written beside ticks `step` apart.
pub(super) fn label(tick: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{tick:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for (end, expected) in [(10.0, 2.0), (7.3, 1.0), (0.9, 0.2), (412.0, 100.0), (1e-5, 2e-6)] {
            let step = step(end, 4.0);
            assert!((step / expected - 1.0).abs() < 1e-6, "{end}: {step}");
            assert!((4..=11).contains(&ticks(end, step).count()), "{end}");
        }
        assert_eq!((step(0.0, 4.0), step(f64::NAN, 4.0)), (1.0, 1.0));
        assert_eq!((label(0.4, 0.2), label(100.0, 50.0)), ("0.4".to_string(), "100".to_string()));
    }
}
