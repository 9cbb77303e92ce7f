use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const OPEN_FOR: Duration = Duration::from_secs(30);

fn policy() -> BreakerPolicy {
    BreakerPolicy {
        failure_threshold: 5,
        failure_share: 0.5,
        window: Duration::from_secs(10),
        min_requests: 20,
        success_threshold: 3,
        open_for: OPEN_FOR,
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A breaker, and the changes that it told of.
fn watched(policy: BreakerPolicy) -> (Breaker, Arc<Mutex<Vec<State>>>) {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let heard = changes.clone();
    (Breaker::new(policy, move |state| heard.lock().push(state)), changes)
}

#[track_caller]
fn request(breaker: &Breaker, verdict: Verdict, now: Duration) {
    let permit = breaker.admit(now).expect("let through");
    breaker.settle(permit, verdict, now);
}

#[test]
fn failures_in_a_row_open_it_and_successes_close_it() {
    let (breaker, changes) = watched(policy());
    for _ in 0..4 {
        request(&breaker, Verdict::Failure, at(1));
    }
    request(&breaker, Verdict::Success, at(1));
    for _ in 0..5 {
        assert_eq!(breaker.state(), State::Closed);
        request(&breaker, Verdict::Failure, at(2));
    }
    assert_eq!(breaker.state(), State::Open);
    let refused = breaker.admit(at(12)).expect_err("open");
    assert_eq!(refused.retry_after, at(20));
    for _ in 0..3 {
        request(&breaker, Verdict::Success, at(32));
    }
    assert_eq!(breaker.state(), State::Closed);
    for _ in 0..4 {
        request(&breaker, Verdict::Failure, at(33));
    }
    assert_eq!(breaker.state(), State::Closed, "what was before does not count");
    assert_eq!(*changes.lock(), [State::Open, State::HalfOpen, State::Closed]);
}

#[test]
fn a_share_of_failures_opens_it() {
    let (breaker, _) = watched(BreakerPolicy {
        failure_threshold: 100,
        ..policy()
    });
    for _ in 0..10 {
        request(&breaker, Verdict::Success, at(1));
        assert_eq!(breaker.state(), State::Closed);
        request(&breaker, Verdict::Failure, at(1));
    }
    assert_eq!(breaker.state(), State::Open, "10 of 20");
}

#[test]
fn a_share_of_few_or_of_long_ago_does_not() {
    let (breaker, _) = watched(BreakerPolicy {
        failure_threshold: 100,
        ..policy()
    });
    for _ in 0..19 {
        request(&breaker, Verdict::Failure, at(1));
    }
    for _ in 0..2 {
        request(&breaker, Verdict::Failure, at(50));
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_half_open_circuit_lets_as_many_through_as_it_needs() {
    let (breaker, changes) = watched(policy());
    for _ in 0..5 {
        request(&breaker, Verdict::Failure, at(0));
    }
    let first = breaker.admit(at(30)).expect("a trial");
    let second = breaker.admit(at(30)).expect("a trial");
    let third = breaker.admit(at(30)).expect("a trial");
    assert!(first.is_trial());
    assert_eq!(breaker.admit(at(30)), Err(Refused { retry_after: at(1) }));
    breaker.settle(first, Verdict::Unknown, at(31));
    let fourth = breaker
        .admit(at(31))
        .expect("in the place of the one that came to nothing");
    breaker.settle(second, Verdict::Success, at(31));
    assert!(
        breaker.admit(at(31)).is_err(),
        "two more are under way, and two more are needed"
    );
    breaker.settle(third, Verdict::Failure, at(31));
    assert_eq!(breaker.state(), State::Open);
    breaker.settle(fourth, Verdict::Success, at(32));
    assert_eq!(breaker.state(), State::Open, "it came too late to have a say");
    assert_eq!(breaker.admit(at(32)), Err(Refused { retry_after: at(29) }));
    assert_eq!(*changes.lock(), [State::Open, State::HalfOpen, State::Open]);
}

#[test]
fn what_began_before_a_change_has_no_say_after_it() {
    let (breaker, _) = watched(policy());
    let old: Vec<_> = (0..20).map(|_| breaker.admit(at(0)).expect("closed")).collect();
    for _ in 0..5 {
        request(&breaker, Verdict::Failure, at(0));
    }
    let trial = breaker.admit(at(30)).expect("half-open");
    for permit in old {
        breaker.settle(permit, Verdict::Failure, at(31));
    }
    assert_eq!(breaker.state(), State::HalfOpen);
    breaker.settle(trial, Verdict::Success, at(31));
    request(&breaker, Verdict::Success, at(31));
    request(&breaker, Verdict::Success, at(31));
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn threads_open_it_once() {
    let (breaker, changes) = watched(policy());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    if let Ok(permit) = breaker.admit(at(1)) {
                        breaker.settle(permit, Verdict::Failure, at(1));
                    }
                }
            });
        }
    });
    assert_eq!(*changes.lock(), [State::Open]);
}

/// What may happen to a breaker.
#[derive(Debug, Clone)]
enum Event {
    Admit,
    /// One of those under way ends.
    Settle(prop::sample::Index, Verdict),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let verdict = prop_oneof![
        4 => Just(Verdict::Success),
        4 => Just(Verdict::Failure),
        1 => Just(Verdict::Unknown)
    ];
    prop_oneof![
        4 => Just(Event::Admit),
        4 => (any::<prop::sample::Index>(), verdict).prop_map(|(index, verdict)| Event::Settle(index, verdict)),
        1 => (0..20_000_u64).prop_map(Event::Wait),
    ]
}

/// What a breaker should do, written down as simply as it can be.
#[derive(Debug)]
struct Model {
    state: State,
    since: u64,
    change: u64,
    row: u32,
    recent: Vec<(u64, bool)>,
    trials: u32,
    succeeded: u32,
}

impl Model {
    fn enter(&mut self, state: State, now: u64) {
        self.state = state;
        self.since = now;
        self.change += 1;
        self.row = 0;
        self.recent.clear();
        self.trials = 0;
        self.succeeded = 0;
    }

    fn admits(&mut self, now: u64, policy: &BreakerPolicy) -> bool {
        if self.state == State::Open && now >= self.since + policy.open_for.as_millis() as u64 {
            self.enter(State::HalfOpen, now);
        }
        match self.state {
            State::Closed => true,
            State::Open => false,
            State::HalfOpen => {
                let admits = self.trials + self.succeeded < policy.success_threshold;
                self.trials += u32::from(admits);
                admits
            }
        }
    }

    fn settle(&mut self, change: u64, verdict: Verdict, now: u64, policy: &BreakerPolicy) {
        if change != self.change {
            return;
        }
        if self.state == State::HalfOpen {
            self.trials -= 1;
            match verdict {
                Verdict::Unknown => {}
                Verdict::Failure => self.enter(State::Open, now),
                Verdict::Success => {
                    self.succeeded += 1;
                    if self.succeeded >= policy.success_threshold {
                        self.enter(State::Closed, now);
                    }
                }
            }
            return;
        }
        let failed = match verdict {
            Verdict::Unknown => return,
            Verdict::Failure => true,
            Verdict::Success => false,
        };
        self.row = if failed { self.row + 1 } else { 0 };
        self.recent.push((now, failed));
        // The window moves on by tenths of its length.
        let slot = policy.window.as_millis() as u64 / 10;
        self.recent.retain(|(at, _)| at / slot + 10 > now / slot);
        let failures = self.recent.iter().filter(|(_, failed)| *failed).count();
        let share = failures as f64 / self.recent.len() as f64;
        let often = self.recent.len() >= policy.min_requests as usize && share >= policy.failure_share;
        if failed && (self.row >= policy.failure_threshold || often) {
            self.enter(State::Open, now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn it_does_what_the_model_does(
        events in prop::collection::vec(event(), 1..300),
        failure_threshold in 1..8_u32,
        success_threshold in 1..5_u32,
        min_requests in 1..12_u32,
    ) {
        let policy = BreakerPolicy { failure_threshold, success_threshold, min_requests, ..policy() };
        let (breaker, changes) = watched(policy.clone());
        let mut model = Model {
            state: State::Closed,
            since: 0,
            change: 0,
            row: 0,
            recent: Vec::new(),
            trials: 0,
            succeeded: 0,
        };
        let mut now = 0;
        let mut under_way = Vec::new();
        for event in events {
            let time = Duration::from_millis(now);
            match event {
                Event::Wait(by) => now += by,
                Event::Admit => {
                    let admits = model.admits(now, &policy);
                    let admitted = breaker.admit(time);
                    prop_assert_eq!(admitted.is_ok(), admits);
                    match admitted {
                        Ok(permit) => under_way.push((permit, model.change)),
                        Err(refused) => prop_assert!(refused.retry_after > Duration::ZERO),
                    }
                }
                Event::Settle(index, verdict) => {
                    if !under_way.is_empty() {
                        let (permit, change) = under_way.swap_remove(index.index(under_way.len()));
                        breaker.settle(permit, verdict, time);
                        model.settle(change, verdict, now, &policy);
                    }
                }
            }
            prop_assert_eq!(breaker.state(), model.state);
            let trials = under_way.iter().filter(|(permit, change)| permit.is_trial() && *change == model.change);
            prop_assert!(trials.count() <= success_threshold as usize);
            prop_assert_eq!(changes.lock().len() as u64, model.change);
        }
        // Whatever has happened, an upstream that works again gets its requests.
        now += OPEN_FOR.as_millis() as u64;
        for (permit, _) in under_way {
            breaker.settle(permit, Verdict::Unknown, Duration::from_millis(now));
        }
        for _ in 0..success_threshold {
            request(&breaker, Verdict::Success, Duration::from_millis(now));
        }
        prop_assert_eq!(breaker.state(), State::Closed);
    }
}
