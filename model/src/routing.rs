//! Which experts compute a row, and by how much each counts. A pure function of the row's own logits.

use crate::config::Experts;
use crate::kernels::{Kernel, Lanes, sum_lanes, with_kernel};

/// One of the experts chosen for a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Choice {
    pub(crate) expert: usize,
    pub(crate) weight: f32,
}

/// One of the rows that an expert computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share {
    pub(crate) row: usize,
    pub(crate) weight: f32,
}

/// The experts with the largest logits, in order of their numbers; of equal ones those with lower numbers. Their weights are a
/// softmax over the chosen logits or over all of them, as `experts` says.
pub(crate) fn choose(logits: &[f32], experts: Experts) -> Vec<Choice> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let largest = order.first().map_or(0.0, |best| logits[*best]);
    order.truncate(experts.chosen);
    order.sort_unstable();
    let counted: Vec<f32> = match experts.normalised {
        true => order.iter().map(|expert| logits[*expert]).collect(),
        false => logits.to_vec(),
    };
    let (softened, sum) = softened(counted, largest);
    let weight = |(place, expert): (usize, &usize)| {
        let place = if experts.normalised { place } else { *expert };
        softened.get(place).map_or(0.0, |value| value / sum)
    };
    let weights: Vec<f32> = order.iter().enumerate().map(weight).collect();
    order.into_iter().zip(weights).map(|(expert, weight)| Choice { expert, weight }).collect()
}

/// The exponential of each logit less the largest, and their sum.
fn softened(mut logits: Vec<f32>, largest: f32) -> (Vec<f32>, f32) {
    let mut sums = Lanes::default();
    with_kernel!(kernel => kernel.soften(&mut logits, largest, 1.0, &mut sums));
    (logits, sum_lanes(&sums))
}

/// The rows of each of `count` experts, in order.
pub(crate) fn by_expert(chosen: &[Vec<Choice>], count: usize) -> Vec<Vec<Share>> {
    let mut shares = vec![Vec::new(); count];
    for (row, choices) in chosen.iter().enumerate() {
        for choice in choices {
            if let Some(shares) = shares.get_mut(choice.expert) {
                shares.push(Share { row, weight: choice.weight });
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experts(chosen: usize, normalised: bool) -> Experts {
        Experts { count: 5, chosen, intermediate: 8, normalised, biases: false, mxfp4: false }
    }

    #[test]
    fn the_best_are_chosen_and_ties_have_one_outcome() {
        let of = |logits: &[f32]| choose(logits, experts(2, true)).iter().map(|c| c.expert).collect::<Vec<_>>();
        assert_eq!(of(&[0.0, 3.0, -1.0, 2.0, 1.0]), [1, 3]);
        assert_eq!(of(&[1.0, 1.0, 1.0, 1.0, 1.0]), [0, 1]);
        assert_eq!(of(&[0.0, 2.0, 5.0, 2.0, 2.0]), [1, 2]);
    }

    #[test]
    fn weights_are_a_softmax_over_the_chosen_or_over_all() {
        let logits = [0.0, 3.0, -1.0, 2.0, 1.0_f32];
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} {b}");
        let e = f32::exp;
        let normalised = choose(&logits, experts(2, true));
        near(normalised[0].weight, e(3.0) / (e(3.0) + e(2.0)));
        near(normalised.iter().map(|c| c.weight).sum(), 1.0);
        let all: f32 = logits.iter().map(|l| e(*l)).sum();
        near(choose(&logits, experts(2, false))[1].weight, e(2.0) / all);
    }

    #[test]
    fn rows_are_gathered_by_expert() {
        let chosen = [choose(&[0.0, 1.0, 2.0], experts(2, true)), choose(&[3.0, 1.0, 2.0], experts(1, true))];
        let rows: Vec<Vec<usize>> =
            by_expert(&chosen, 3).iter().map(|shares| shares.iter().map(|share| share.row).collect()).collect();
        assert_eq!(rows, [vec![1], vec![0], vec![0]]);
    }
}
