//! Which server gets the next request.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Longest round of weighted turns that is laid out; larger weights are scaled down to it.
const MAX_ROUND: u64 = 4096;

/// The place of one choice among those of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn(pub usize);

/// Counts choices.
#[derive(Debug, Default)]
pub struct Turns(AtomicUsize);

impl Turns {
    pub fn next(&self) -> Turn {
        Turn(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// The least `open / weight`; the turn decides among equals, so that idle servers share the work.
pub(super) fn least(
    loads: impl ExactSizeIterator<Item = (usize, u32)> + Clone,
    turn: Turn,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    let count = loads.len().max(1);
    let mut best: Option<(usize, usize, u32)> = None;
    for (index, (open, weight)) in loads.clone().enumerate().cycle().skip(turn.0 % count).take(loads.len()) {
        if excluded(index) {
            continue;
        }
        // open/weight < least/least_weight, without a division.
        let better = match best {
            None => true,
            Some((_, least, least_weight)) => open as u64 * u64::from(least_weight) < least as u64 * u64::from(weight),
        };
        if better {
            best = Some((index, open, weight));
        }
    }
    best.map(|(index, ..)| index)
}

/// Smooth weighted round robin: turns of a heavy server are spread over the round, not bunched.
pub(super) fn smooth_round(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, u64::from(*b))).max(1);
    let total: u64 = weights.iter().map(|w| u64::from(*w) / divisor).sum();
    let scale = total.div_ceil(MAX_ROUND).max(1);
    let weights: Vec<i64> = weights
        .iter()
        .map(|w| (u64::from(*w) / divisor / scale).max(1) as i64)
        .collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    let mut round = Vec::with_capacity(total as usize);
    for _ in 0..total {
        let mut best = 0;
        for (index, weight) in weights.iter().enumerate() {
            credit[index] += weight;
            if credit[index] > credit[best] {
                best = index;
            }
        }
        credit[best] -= total;
        round.push(best as u32);
    }
    round
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_the_weights_and_are_spread() {
        for (weights, expected) in [
            (vec![1], vec![0]),
            (vec![1, 1, 1], vec![0, 1, 2]),
            (vec![5, 1, 1], vec![0, 0, 1, 0, 2, 0, 0]),
            (vec![20, 10], vec![0, 1, 0]),
        ] {
            assert_eq!(smooth_round(&weights), expected, "{weights:?}");
        }
    }

    #[test]
    fn a_round_is_bounded_and_every_server_has_a_turn() {
        let round = smooth_round(&[u32::MAX, 1, 7_654_321]);
        assert!(round.len() as u64 <= MAX_ROUND + 3);
        for index in 0..3 {
            assert!(round.contains(&index));
        }
    }

    #[test]
    fn least_goes_by_load_per_weight_and_takes_turns_among_equals() {
        for (loads, turn, excluded, expected) in [
            (vec![(3, 1), (2, 1), (4, 1)], 0, 9, Some(1)),
            (vec![(3, 2), (2, 1), (4, 1)], 0, 9, Some(0)),
            (vec![(0, 1), (0, 1), (0, 1)], 0, 9, Some(0)),
            (vec![(0, 1), (0, 1), (0, 1)], 1, 9, Some(1)),
            (vec![(0, 1), (0, 1), (0, 1)], 5, 9, Some(2)),
            (vec![(0, 1), (5, 1)], 0, 0, Some(1)),
            (vec![(0, 1)], 0, 0, None),
            (vec![], 3, 9, None),
        ] {
            let chosen = least(loads.clone().into_iter(), Turn(turn), |index| index == excluded);
            assert_eq!(chosen, expected, "{loads:?} at turn {turn} without {excluded}");
        }
    }
}
