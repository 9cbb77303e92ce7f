use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn limit(amount: u64, per: Duration, burst: u64) -> Gcra {
    Gcra::new(amount, per, burst, Duration::ZERO)
}

fn is_admitted(verdict: &Verdict) -> bool {
    verdict.admission == Admission::Admitted
}

/// A bucket of `burst` units that `amount` units drip back into in each `per`: the same thing in exact fractions of a unit, told
/// by counting and not by arrival times.
struct Bucket {
    /// In parts of a unit: `per` nanoseconds times units.
    level: u128,
    amount: u128,
    per: u128,
    burst: u128,
    at: u64,
}

impl Bucket {
    fn new(amount: u64, per: Duration, burst: u64) -> Self {
        let (per, burst) = (per.as_nanos(), u128::from(burst));
        Self {
            level: burst * per,
            amount: u128::from(amount),
            per,
            burst,
            at: 0,
        }
    }

    fn level(&self, now: u64) -> u128 {
        let since = u128::from(now - self.at);
        (self.level + since * self.amount).min(self.burst * self.per)
    }

    fn take(&mut self, now: u64) {
        self.level = self.level(now).saturating_sub(self.per);
        self.at = now;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Random arrivals: what is admitted is in the bucket, and what is refused is not, but for rounding.
    #[test]
    fn it_is_a_bucket(
        amount in 1_u64..5000,
        per in prop_oneof![Just(Duration::from_millis(250)), Just(Duration::from_secs(1)), Just(Duration::from_secs(60)), Just(Duration::from_secs(86_400))],
        burst in 1_u64..50,
        gaps in prop::collection::vec((0_u64..4, 0.0_f64..3.0), 1..300),
    ) {
        let gcra = limit(amount, per, burst);
        let mut bucket = Bucket::new(amount, per, burst);
        let mut state = State::NEW;
        let mut now = 0;
        let interval = per.as_nanos() as f64 / amount as f64;
        let mut taken = 0_u128;
        for (kind, factor) in gaps {
            // Crowds, the very rate, and pauses.
            now += match kind {
                0 => 0,
                1 => interval.ceil() as u64,
                _ => (interval * factor) as u64,
            };
            let (after, verdict) = gcra.take(state, now, 1);
            state = after;
            // Each unit that was taken has been rounded by less than a nanosecond.
            let rounding = (taken + 2) * u128::from(amount);
            let early = bucket.per / u128::from(JITTER);
            match verdict.admission {
                Admission::Admitted => {
                    prop_assert!(bucket.level(now) + early + rounding >= bucket.per, "admitted at {now}");
                    bucket.take(now);
                    taken += 1;
                }
                Admission::Refused { retry_after, .. } => {
                    prop_assert!(bucket.level(now) < bucket.per + rounding, "refused at {now}");
                    let then = now + u64::try_from(retry_after.as_nanos()).unwrap();
                    prop_assert!(is_admitted(&gcra.peek(state, then, 1)));
                    prop_assert!(!is_admitted(&gcra.peek(state, then - 1, 1)));
                }
            }
        }
    }

    /// In any window of `per` at most `burst + amount` get through, and at once exactly `burst`.
    #[test]
    fn no_window_holds_more_than_burst_and_amount(
        amount in 1_u64..40,
        burst in 1_u64..40,
        mut arrivals in prop::collection::vec(0_u64..5 * SECOND, 1..600),
    ) {
        arrivals.sort_unstable();
        let gcra = limit(amount, Duration::from_secs(1), burst);
        let mut state = State::NEW;
        let mut admitted = Vec::new();
        for now in arrivals {
            let (after, verdict) = gcra.take(state, now, 1);
            state = after;
            if is_admitted(&verdict) {
                admitted.push(now);
            }
        }
        for (index, start) in admitted.iter().enumerate() {
            let within = admitted[index..].iter().take_while(|at| **at < start + SECOND).count() as u64;
            prop_assert!(within <= burst + amount, "{within} from {start}");
        }
    }

    #[test]
    fn burst_is_how_many_may_come_at_once(amount in 1_u64..2_000_000, seconds in 1_u64..100_000, burst in 1_u64..3000) {
        prop_assume!(seconds * SECOND / amount >= SHORT);
        let gcra = limit(amount, Duration::from_secs(seconds), burst);
        let mut state = State::NEW;
        for taken in 0..burst {
            let (after, verdict) = gcra.take(state, 0, 1);
            prop_assert!(is_admitted(&verdict));
            prop_assert_eq!(verdict.remaining, burst - taken - 1);
            state = after;
        }
        prop_assert!(!is_admitted(&gcra.peek(state, 0, 1)));
    }

    /// Whoever comes at the rate, from when everything is used up, loses at most 1 %.
    #[test]
    fn a_steady_client_gets_what_it_is_entitled_to(amount in 1_u64..=1_000_000, burst in 1_u64..5) {
        let gcra = limit(amount, Duration::from_secs(1), burst);
        let mut state = State::NEW;
        while is_admitted(&gcra.peek(state, 0, 1)) {
            state = gcra.take(state, 0, 1).0;
        }
        let mut admitted = 0_u64;
        let asked = 2000_u128;
        for arrival in 1..=asked {
            let now = u64::try_from((arrival * u128::from(SECOND)).div_ceil(u128::from(amount))).unwrap();
            let (after, verdict) = gcra.take(state, now, 1);
            state = after;
            admitted += u64::from(is_admitted(&verdict));
        }
        prop_assert!(admitted >= 1980, "{admitted}");
    }

    /// No clock, state or amount leads to a panic or a block without end.
    #[test]
    fn nothing_overflows(word: u64, now in 0..HORIZON, amount in 1..u64::MAX, per in 1..u64::MAX, burst: u64, units: u64, block: u64) {
        let gcra = Gcra::new(amount, Duration::from_nanos(per), burst, Duration::from_nanos(block));
        let state = State::from_word(word);
        let _ = gcra.take(state, now, units);
        let _ = gcra.charge(state, now, units);
        let _ = gcra.give_back(state, now, units);
        let _ = gcra.share(7).take(state, now, units);
    }
}

#[test]
fn a_block_outlasts_the_excess_and_ends() {
    let gcra = Gcra::new(60, Duration::from_secs(60), 2, Duration::from_secs(10));
    let mut state = State::NEW;
    for _ in 0..2 {
        state = gcra.take(state, 0, 1).0;
    }
    let (blocked, verdict) = gcra.take(state, 0, 1);
    let ten = Duration::from_secs(10);
    assert_eq!(
        verdict.admission,
        Admission::Refused {
            why: Refused::Excess,
            retry_after: ten
        }
    );
    // A client that keeps asking is not blocked for longer.
    let (still, verdict) = gcra.take(blocked, 9 * SECOND, 1);
    assert_eq!(still, blocked);
    assert_eq!(
        verdict.admission,
        Admission::Refused {
            why: Refused::Blocked,
            retry_after: Duration::from_secs(1)
        }
    );
    let (_, verdict) = gcra.take(blocked, 10 * SECOND, 1);
    assert_eq!((verdict.admission, verdict.remaining), (Admission::Admitted, 1));
}

#[test]
fn a_short_block_gives_nothing_back() {
    let gcra = Gcra::new(60, Duration::from_secs(60), 10, Duration::from_secs(2));
    let mut state = State::NEW;
    for _ in 0..11 {
        state = gcra.take(state, 0, 1).0;
    }
    assert!(!is_admitted(&gcra.peek(state, SECOND, 1)));
    let mut admitted = 0;
    while is_admitted(&gcra.peek(state, 2 * SECOND, 1)) {
        state = gcra.take(state, 2 * SECOND, 1).0;
        admitted += 1;
    }
    assert_eq!(admitted, 2, "two seconds give two back");
}

#[test]
fn what_is_more_than_everything_is_given_to_who_has_everything() {
    let gcra = limit(10, Duration::from_secs(1), 10);
    let (state, verdict) = gcra.take(State::NEW, 0, 1000);
    assert!(is_admitted(&verdict));
    let Admission::Refused { retry_after, .. } = gcra.peek(state, 0, 1).admission else {
        panic!("admitted");
    };
    assert_eq!(retry_after, Duration::from_millis(99_090));
}

#[test]
fn what_was_not_used_comes_back() {
    let gcra = limit(1_000_000, Duration::from_secs(60), 1000);
    let (state, _) = gcra.take(State::NEW, 0, 1000);
    assert!(!is_admitted(&gcra.peek(state, 0, 1)));
    let state = gcra.give_back(state, 0, 400);
    assert_eq!(gcra.peek(state, 0, 0).remaining, 400);
    let state = gcra.charge(state, 0, 300);
    assert_eq!(gcra.peek(state, 0, 0).remaining, 100);
    assert_eq!(
        gcra.give_back(State::NEW, 5, 10),
        State::back_at(5),
        "nobody gets more than everything"
    );
}

#[test]
fn instances_share_a_limit() {
    let whole = limit(100, Duration::from_secs(1), 90);
    let third = whole.share(3);
    let mut state = State::NEW;
    let mut admitted = 0;
    for now in (0..=10 * SECOND).step_by(1_000_000) {
        let (after, verdict) = third.take(state, now, 1);
        state = after;
        admitted += u64::from(is_admitted(&verdict));
    }
    assert!((362..=364).contains(&admitted), "{admitted}");
    // A burst smaller than the number of instances still lets each of them work.
    let lone = limit(60, Duration::from_secs(60), 1).share(3);
    let (state, verdict) = lone.take(State::NEW, 0, 1);
    assert!(is_admitted(&verdict));
    assert!(!is_admitted(&lone.peek(state, 2 * SECOND, 1)));
    assert!(is_admitted(&lone.peek(state, 3 * SECOND, 1)));
}

#[test]
fn bytes_at_a_gibibyte_a_second_are_not_lost_to_rounding() {
    let gcra = limit(1 << 30, Duration::from_secs(1), 1 << 30);
    let mut state = State::NEW;
    for _ in 0..1000 {
        state = gcra.charge(state, 0, 1 << 20);
    }
    let left = gcra.peek(state, 0, 0).remaining;
    let expected = (1_u64 << 30) - 1000 * (1 << 20);
    assert!(left.abs_diff(expected) < 2048, "{left} instead of {expected}");
}
