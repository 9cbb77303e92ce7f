//! Consistent hashing: a server that comes or goes moves only the keys that are its own.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Points on the ring for a server of weight 1: shares differ by a twelfth or so from what they should be.
const POINTS: u32 = 160;

/// Points of all servers together. Beyond it each gets half as many, and half again, so that adding one server to many does not
/// change the points of the others.
const MAX_POINTS: u64 = 1 << 17;

/// Points that are looked at for one key: so many in a row belong to servers that are out only if nearly all are.
const MAX_STEPS: usize = 256;

/// Servers, by index, at their points of the circle of all 64-bit numbers.
#[derive(Debug, Default)]
pub struct Ring {
    points: Vec<(u64, u32)>,
    /// For each value of the first `bits` bits, the first point that is not below it. Points lie evenly, so the point that is looked
    /// for is there or next to it.
    starts: Vec<u32>,
    bits: u32,
}

impl Ring {
    /// The servers' names, which decide where their points lie, and weights.
    pub fn new<'a>(servers: impl Iterator<Item = (&'a str, u32)> + Clone) -> Self {
        let total: u64 = servers
            .clone()
            .map(|(_, weight)| u64::from(weight) * u64::from(POINTS))
            .sum();
        let mut halved = 0;
        while total >> halved > MAX_POINTS {
            halved += 1;
        }
        let mut points = Vec::new();
        for (index, (name, weight)) in servers.enumerate() {
            let count = ((u64::from(weight) * u64::from(POINTS)) >> halved).max(1);
            for point in 0..count {
                points.push((xxh3_64_with_seed(name.as_bytes(), point), index as u32));
            }
        }
        points.sort_unstable();
        let bits = points.len().max(2).next_power_of_two().ilog2();
        let mut starts = Vec::with_capacity(1 << bits);
        let mut at = 0;
        for bucket in 0..1_u64 << bits {
            while points.get(at).is_some_and(|(hash, _)| *hash < bucket << (64 - bits)) {
                at += 1;
            }
            starts.push(at as u32);
        }
        Self { points, starts, bits }
    }

    /// The servers in the order in which they are asked for this key; some stand there more than once.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = u32> + '_ {
        let mut at = match self.starts.get((key >> (64 - self.bits.max(1))) as usize) {
            Some(start) => *start as usize,
            None => 0,
        };
        while self.points.get(at).is_some_and(|(hash, _)| *hash < key) {
            at += 1;
        }
        let (before, from) = self.points.split_at(at.min(self.points.len()));
        from.iter().chain(before).take(MAX_STEPS).map(|(_, index)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|server| format!("10.0.0.{server}:3000")).collect()
    }

    fn ring(names: &[String]) -> Ring {
        Ring::new(names.iter().map(|name| (name.as_str(), 1)))
    }

    fn key(number: u64) -> u64 {
        xxh3_64_with_seed(b"key", number)
    }

    #[test]
    fn one_more_server_of_ten_moves_its_own_keys_only() {
        let (nine, ten) = (names(9), names(10));
        let (before, after) = (ring(&nine), ring(&ten));
        let keys = 100_000;
        let mut moved = 0;
        for number in 0..keys {
            let (was, is) = (before.walk(key(number)).next(), after.walk(key(number)).next());
            if was != is {
                assert_eq!(is, Some(9), "a key moves to the new server or not at all");
                moved += 1;
            }
        }
        // A tenth; a server's share of the ring has a standard deviation of 1/√160 of itself.
        let share = f64::from(moved) / keys as f64;
        assert!((0.07..0.13).contains(&share), "{share}");
    }

    #[test]
    fn shares_follow_the_weights() {
        let ring = Ring::new([("a", 1), ("b", 3)].into_iter());
        let to_b = (0..100_000)
            .filter(|number| ring.walk(key(*number)).next() == Some(1))
            .count();
        assert!((70_000..80_000).contains(&to_b), "{to_b}");
    }

    #[test]
    fn an_empty_ring_has_nobody() {
        assert_eq!(ring(&[]).walk(7).next(), None);
        assert_eq!(Ring::default().walk(u64::MAX).next(), None);
    }

    #[test]
    fn it_is_bounded() {
        let ring = Ring::new([("a", u32::MAX), ("b", 65_535)].into_iter());
        assert!(ring.points.len() as u64 <= MAX_POINTS + 2);
        assert!(ring.points.iter().any(|(_, index)| *index == 1));
    }

    proptest! {
        #[test]
        fn the_first_is_the_next_point_of_the_circle(count in 1_usize..20, key in any::<u64>()) {
            let ring = ring(&names(count));
            let next = ring.points.iter().find(|(hash, _)| *hash >= key).or(ring.points.first()).unwrap();
            prop_assert_eq!(ring.walk(key).next(), Some(next.1));
        }

        #[test]
        fn who_is_out_leaves_the_others_keys_alone(key in any::<u64>(), out in 0_u32..10) {
            let (all, names) = (ring(&names(10)), names(10));
            let rest: Vec<_> = names.iter().enumerate().filter(|(index, _)| *index as u32 != out).collect();
            let without = Ring::new(rest.iter().map(|(_, name)| (name.as_str(), 1)));
            let expected = rest[without.walk(key).next().unwrap() as usize].0 as u32;
            prop_assert_eq!(all.walk(key).find(|index| *index != out), Some(expected));
        }
    }
}
