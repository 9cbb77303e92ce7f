use proptest::prelude::*;

use super::*;

fn policy() -> RetryPolicy {
    RetryPolicy {
        retries: 3,
        delay: Duration::from_millis(50),
        max_delay: Duration::from_secs(2),
        factor: 2.0,
        budget: 0.2,
        statuses: vec![502, 503, 504],
        max_time: Duration::from_secs(60),
    }
}

fn get() -> Request {
    Request {
        method: MethodKind::Idempotent,
        body: Body::Held,
        retries: 0,
        elapsed: Duration::ZERO,
    }
}

fn again(milliseconds: u64) -> Decision {
    Decision::Again {
        after: Duration::from_millis(milliseconds),
        charge: Charge::Budget,
    }
}

const AT_ONCE: Decision = Decision::Again {
    after: Duration::ZERO,
    charge: Charge::Nothing,
};

#[test]
fn which_failure_of_which_request() {
    let policy = policy();
    let post = Request {
        method: MethodKind::Other,
        ..get()
    };
    let gone = Request {
        body: Body::Gone,
        ..get()
    };
    let answered = Failed::Answered { retry_after: None };
    for (request, failed, with_policy, without) in [
        (get(), Failed::Untaken, AT_ONCE, AT_ONCE),
        (get(), Failed::Unreachable, again(50), Decision::Stop),
        (get(), Failed::Lost, again(50), Decision::Stop),
        (get(), Failed::TimedOut, again(50), Decision::Stop),
        (get(), answered, again(50), Decision::Stop),
        (get(), Failed::Finally, Decision::Stop, Decision::Stop),
        (post, Failed::Untaken, AT_ONCE, AT_ONCE),
        (post, Failed::Unreachable, again(50), Decision::Stop),
        (post, Failed::Lost, Decision::Stop, Decision::Stop),
        (post, Failed::TimedOut, Decision::Stop, Decision::Stop),
        (post, answered, Decision::Stop, Decision::Stop),
        (gone, Failed::Untaken, Decision::Stop, Decision::Stop),
        (gone, Failed::Lost, Decision::Stop, Decision::Stop),
    ] {
        assert_eq!(
            decide(Some(&policy), request, failed, 1.0),
            with_policy,
            "{request:?} {failed:?}"
        );
        assert_eq!(decide(None, request, failed, 1.0), without, "{request:?} {failed:?}");
    }
}

#[test]
fn pauses_grow_up_to_a_limit() {
    let policy = RetryPolicy {
        retries: 10,
        ..policy()
    };
    for (retries, random, expected) in [
        (0, 1.0, again(50)),
        (0, 0.0, again(0)),
        (0, 0.5, again(25)),
        (1, 1.0, again(100)),
        (2, 1.0, again(200)),
        (5, 1.0, again(1600)),
        (6, 1.0, again(2000)),
        (9, 1.0, again(2000)),
        (10, 1.0, Decision::Stop),
    ] {
        let request = Request { retries, ..get() };
        assert_eq!(
            decide(Some(&policy), request, Failed::Lost, random),
            expected,
            "{retries}"
        );
    }
}

#[test]
fn retry_after_is_waited_for_or_the_answer_stands() {
    let policy = policy();
    let ask = |seconds, elapsed| {
        let request = Request {
            elapsed: Duration::from_secs(elapsed),
            ..get()
        };
        let retry_after = Some(Duration::from_secs(seconds));
        decide(Some(&policy), request, Failed::Answered { retry_after }, 1.0)
    };
    assert_eq!(ask(0, 0), again(50));
    assert_eq!(ask(1, 0), again(1000));
    assert_eq!(ask(2, 0), again(2000));
    assert_eq!(ask(3, 0), Decision::Stop, "longer than a pause may be");
    assert_eq!(ask(2, 58), Decision::Stop, "beyond the time for all attempts");
    assert_eq!(ask(2, 57), again(2000));
}

#[test]
fn a_budget_is_a_share_of_the_requests_of_late_and_never_nothing() {
    let budget = Budget::new(0.2, Duration::from_secs(10));
    let at = Duration::from_secs;
    let spent = |budget: &Budget, now| (0..10_000).take_while(|_| budget.spend(now)).count();
    assert_eq!(spent(&budget, at(100)), 10, "with no requests at all");
    assert_eq!(spent(&budget, at(105)), 0);
    for _ in 0..1000 {
        budget.earn(at(105));
    }
    assert_eq!(spent(&budget, at(105)), 190);
    assert_eq!(spent(&budget, at(114)), 10, "the first ten are forgotten");
    assert_eq!(spent(&budget, at(130)), 10);
}

#[test]
fn a_budget_looks_back_over_two_attempts() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (first_byte, expected) in [(seconds(1), 10), (seconds(30), 60), (seconds(600), 120), (None, 120)] {
        assert_eq!(look_back(first_byte).as_secs(), expected);
    }
}

proptest! {
    #[test]
    fn nothing_is_tried_for_ever_or_too_late(
        retries in 0..20_u32,
        elapsed in 0..120_000_u64,
        random in 0.0..=1.0,
        failed in prop_oneof![
            Just(Failed::Untaken),
            Just(Failed::Unreachable),
            Just(Failed::Lost),
            Just(Failed::TimedOut),
            prop::option::of(0..100_000_u64).prop_map(|after| Failed::Answered {
                retry_after: after.map(Duration::from_millis)
            }),
        ],
        idempotent: bool,
        factor in 1.0..10.0,
    ) {
        let policy = RetryPolicy { factor, ..policy() };
        let method = if idempotent { MethodKind::Idempotent } else { MethodKind::Other };
        let request = Request { method, retries, elapsed: Duration::from_millis(elapsed), ..get() };
        if let Decision::Again { after, .. } = decide(Some(&policy), request, failed, random) {
            prop_assert!(retries < policy.retries);
            prop_assert!(after <= policy.max_delay);
            prop_assert!(request.elapsed + after < policy.max_time);
            prop_assert!(idempotent || matches!(failed, Failed::Untaken | Failed::Unreachable));
            if let Failed::Answered { retry_after: Some(wanted) } = failed {
                prop_assert!(after >= wanted);
            }
        }
    }

    #[test]
    fn a_budget_holds_whatever_the_traffic(
        steps in prop::collection::vec((0..500_u64, 0..20_u32, 0..20_u32), 1..100),
        share in 0.0..=1.0,
    ) {
        let budget = Budget::new(share, Duration::from_secs(1));
        let mut now = 0;
        let (mut all, mut spent) = (0, 0);
        for (step, requests, retries) in steps {
            now += step;
            let now = Duration::from_millis(now);
            (0..requests).for_each(|_| budget.earn(now));
            spent += (0..retries).filter(|_| budget.spend(now)).count();
            all += requests;
        }
        // Ten in each second whatever there is to share.
        let floor = 10.0 * (now as f64 / 1000.0 + 1.0) * 1.2;
        prop_assert!(spent as f64 <= share * f64::from(all) + floor + 10.0);
    }
}
