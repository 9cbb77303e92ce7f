//! Passive health: a server that fails request after request is left out for a while, longer each time.
//!
//! What a server did is remembered with the server ([`Record`]); how many may be left out at once is a matter of all of them
//! ([`may_eject`]). The time is an argument.

use std::time::Duration;

/// When a server is left out, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierPolicy {
    /// Failures in a row. At least 1.
    pub consecutive_failures: u32,
    /// The first time; twice as long the second time, and so on.
    pub eject_for: Duration,
    /// However often it was left out.
    pub max_eject_for: Duration,
    /// Share of the servers, 0.0 to 1.0.
    pub max_ejected: f64,
}

/// What one server has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// In a row.
    failures: u32,
    /// How often it was left out. One is forgotten for each `eject_for` that it was in again.
    ejections: u32,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Trusted,
    Ejected {
        until: Duration,
    },
    /// It is in again, and has not shown yet that it works: the first failure counts.
    Probation {
        since: Duration,
    },
    /// It works again, since it came back then.
    Restored {
        since: Duration,
    },
}

/// What is to be done about a server that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    Keep,
    /// Leave it out, if [`may_eject`] allows.
    Eject,
}

impl Record {
    /// Nothing is held against it: a success would change nothing.
    pub fn is_clean(&self) -> bool {
        self.failures == 0 && matches!(self.standing, Standing::Trusted | Standing::Restored { .. })
    }

    pub fn is_ejected(&self) -> bool {
        matches!(self.standing, Standing::Ejected { .. })
    }

    /// Whether it came back and has not shown yet that it works.
    pub fn is_on_probation(&self) -> bool {
        matches!(self.standing, Standing::Probation { .. })
    }

    /// When it comes back.
    pub fn ejected_until(&self) -> Option<Duration> {
        match self.standing {
            Standing::Ejected { until } => Some(until),
            _ => None,
        }
    }

    /// It has answered a request. What began before it was left out does not bring it back: the requests that failed were newer.
    pub fn succeeded(&mut self) {
        match self.standing {
            Standing::Ejected { .. } => {}
            Standing::Probation { since } => {
                self.failures = 0;
                self.standing = Standing::Restored { since };
            }
            Standing::Trusted | Standing::Restored { .. } => self.failures = 0,
        }
    }

    pub fn failed(&mut self, policy: &OutlierPolicy) -> Advice {
        let limit = match self.standing {
            Standing::Ejected { .. } => return Advice::Keep,
            Standing::Probation { .. } => 1,
            Standing::Trusted | Standing::Restored { .. } => policy.consecutive_failures,
        };
        self.failures = self.failures.saturating_add(1);
        match self.failures >= limit {
            true => Advice::Eject,
            false => Advice::Keep,
        }
    }

    /// Leaves it out. For how long.
    pub fn eject(&mut self, now: Duration, policy: &OutlierPolicy) -> Duration {
        if let Standing::Probation { since } | Standing::Restored { since } = self.standing {
            let good = now.saturating_sub(since).as_nanos() / policy.eject_for.as_nanos().max(1);
            self.ejections = self.ejections.saturating_sub(u32::try_from(good).unwrap_or(u32::MAX));
        }
        self.ejections = self.ejections.saturating_add(1);
        self.failures = 0;
        let time = policy
            .eject_for
            .saturating_mul(self.ejections)
            .min(policy.max_eject_for);
        self.standing = Standing::Ejected {
            until: now.saturating_add(time),
        };
        time
    }

    /// Whether its time is over; it comes back then.
    pub fn expires(&mut self, now: Duration) -> bool {
        match self.standing {
            Standing::Ejected { until } if until <= now => {
                self.standing = Standing::Probation { since: now };
                true
            }
            _ => false,
        }
    }

    /// A health check found it well: it comes back early, if it was left out.
    pub fn recovers(&mut self, now: Duration) -> bool {
        match self.is_ejected() {
            true => {
                self.standing = Standing::Probation { since: now };
                true
            }
            false => false,
        }
    }
}

/// Whether one more server may be left out.
///
/// At most `max_ejected` of all servers, rounded down, but at least one where there is more than one and any may be left out at all: of
/// two servers a broken one would otherwise keep its half of the requests at 40 %. Never the last one that is in use: a server
/// that fails now and then is better than none, and where it always fails the circuit breaker is there for it.
pub fn may_eject(policy: &OutlierPolicy, servers: Servers) -> bool {
    if policy.max_ejected <= 0.0 || servers.others_usable == 0 {
        return false;
    }
    // The product of a whole number of percent and a small number is off by less than this.
    const ROUNDING: f64 = 1e-9;
    let limit = (policy.max_ejected * servers.all as f64 + ROUNDING).floor().max(1.0);
    ((servers.ejected + 1) as f64) <= limit
}

/// The servers of an upstream at the moment when one of them is to be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Servers {
    pub all: usize,
    /// Those that are left out.
    pub ejected: usize,
    /// Those that are in use beside the one that is to be left out.
    pub others_usable: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> OutlierPolicy {
        OutlierPolicy {
            consecutive_failures: 3,
            eject_for: Duration::from_secs(30),
            max_eject_for: Duration::from_secs(100),
            max_ejected: 0.5,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[track_caller]
    fn eject(record: &mut Record, now: u64) -> u64 {
        while record.failed(&policy()) == Advice::Keep {}
        record.eject(at(now), &policy()).as_secs()
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_forgives() {
        let mut record = Record::default();
        for _ in 0..5 {
            assert_eq!(record.failed(&policy()), Advice::Keep);
            assert_eq!(record.failed(&policy()), Advice::Keep);
            assert!(!record.is_clean());
            record.succeeded();
            assert!(record.is_clean());
        }
        assert_eq!(record.failed(&policy()), Advice::Keep);
        assert_eq!(record.failed(&policy()), Advice::Keep);
        assert_eq!(record.failed(&policy()), Advice::Eject);
        assert_eq!(
            record.failed(&policy()),
            Advice::Eject,
            "where it was not allowed before it may be now"
        );
    }

    #[test]
    fn it_is_out_for_longer_each_time_up_to_a_limit() {
        let mut record = Record::default();
        let mut now = 0;
        for expected in [30, 60, 90, 100, 100] {
            assert_eq!(eject(&mut record, now), expected);
            assert!(!record.expires(at(now + expected - 1)));
            assert!(record.is_ejected());
            assert!(record.expires(at(now + expected)));
            assert!(!record.is_ejected());
            now += expected;
        }
    }

    #[test]
    fn good_times_are_remembered() {
        let mut record = Record::default();
        assert_eq!(eject(&mut record, 0), 30);
        assert!(record.expires(at(30)));
        assert_eq!(eject(&mut record, 30), 60);
        assert!(record.expires(at(90)));
        record.succeeded();
        assert_eq!(eject(&mut record, 90 + 29), 90, "not long enough");
        assert!(record.expires(at(209)));
        record.succeeded();
        assert_eq!(eject(&mut record, 209 + 65), 60, "two are forgotten");
        assert!(record.expires(at(334)));
        record.succeeded();
        assert_eq!(eject(&mut record, 1000), 30);
    }

    #[test]
    fn the_first_failure_after_coming_back_counts() {
        let mut record = Record::default();
        eject(&mut record, 0);
        record.succeeded();
        assert!(record.is_ejected(), "an old request's end brings nobody back");
        assert!(record.expires(at(30)));
        assert!(record.is_on_probation());
        assert_eq!(record.failed(&policy()), Advice::Eject);
        record.eject(at(31), &policy());
        assert!(record.expires(at(91)));
        record.succeeded();
        assert_eq!(record.failed(&policy()), Advice::Keep, "it has shown that it works");
    }

    #[test]
    fn a_health_check_brings_it_back_early() {
        let mut record = Record::default();
        assert!(!record.recovers(at(0)));
        eject(&mut record, 0);
        assert!(record.recovers(at(7)));
        assert!(record.is_on_probation());
        assert!(!record.expires(at(30)));
    }

    #[test]
    fn how_many_may_be_left_out() {
        for (all, max_ejected, expected) in [
            (1, 1.0, 0),
            (2, 0.5, 1),
            (2, 0.1, 1),
            (2, 0.0, 0),
            (2, 1.0, 1),
            (3, 0.5, 1),
            (4, 0.5, 2),
            (10, 0.1, 1),
            (10, 0.3, 3),
            (10, 0.7, 7),
            (10, 1.0, 9),
            (100, 0.07, 7),
            (100, 0.29, 29),
        ] {
            let policy = OutlierPolicy {
                max_ejected,
                ..policy()
            };
            let mut ejected = 0;
            while may_eject(
                &policy,
                Servers {
                    all,
                    ejected,
                    others_usable: all - ejected - 1,
                },
            ) {
                ejected += 1;
            }
            assert_eq!(ejected, expected, "{all} servers, {max_ejected}");
        }
    }

    #[test]
    fn the_last_one_in_use_stays_whatever_the_others_are_out_for() {
        let servers = Servers {
            all: 10,
            ejected: 0,
            others_usable: 0,
        };
        assert!(!may_eject(&policy(), servers));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Failed(usize),
        Succeeded(usize),
        Probed(usize),
        Wait(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (0..7_usize).prop_map(Event::Failed),
            2 => (0..7_usize).prop_map(Event::Succeeded),
            1 => (0..7_usize).prop_map(Event::Probed),
            1 => (0..60_u64).prop_map(Event::Wait),
        ]
    }

    proptest! {
        #[test]
        fn never_too_many_never_too_long_and_never_without_a_reason(
            count in 1..7_usize,
            max_ejected in 0..=100_u32,
            consecutive_failures in 1..5_u32,
            events in prop::collection::vec(event(), 1..300),
        ) {
            let max_ejected = f64::from(max_ejected) / 100.0;
            let policy = OutlierPolicy { max_ejected, consecutive_failures, ..policy() };
            let mut servers = vec![Record::default(); count];
            let mut row = vec![0; count];
            let mut now = 0;
            for event in events {
                match event {
                    Event::Wait(by) => now += by,
                    Event::Succeeded(index) => {
                        let server = &mut servers[index % count];
                        server.succeeded();
                        row[index % count] = 0;
                        prop_assert!(server.is_clean() || server.is_ejected());
                    }
                    Event::Probed(index) => {
                        servers[index % count].recovers(at(now));
                        prop_assert!(!servers[index % count].is_ejected());
                    }
                    Event::Failed(index) => {
                        let index = index % count;
                        let ejected = servers.iter().filter(|server| server.is_ejected()).count();
                        let was_out = servers[index].is_ejected();
                        let probation = servers[index].is_on_probation();
                        row[index] += 1;
                        let advice = servers[index].failed(&policy);
                        prop_assert!(!(was_out && advice == Advice::Eject));
                        if advice == Advice::Eject {
                            prop_assert!(probation || row[index] >= consecutive_failures);
                            let all = Servers { all: count, ejected, others_usable: count - ejected - 1 };
                            if may_eject(&policy, all) {
                                let time = servers[index].eject(at(now), &policy);
                                prop_assert!(time >= policy.eject_for && time <= policy.max_eject_for);
                                prop_assert_eq!(servers[index].ejected_until(), Some(at(now) + time));
                                row[index] = 0;
                            }
                        }
                    }
                }
                for server in &mut servers {
                    let until = server.ejected_until();
                    let expired = server.expires(at(now));
                    prop_assert_eq!(expired, until.is_some_and(|until| until <= at(now)));
                }
                let ejected = servers.iter().filter(|server| server.is_ejected()).count();
                prop_assert!(ejected < count);
                prop_assert!(ejected as f64 <= (max_ejected * count as f64 + 1e-9).floor().max(1.0));
            }
        }
    }
}
