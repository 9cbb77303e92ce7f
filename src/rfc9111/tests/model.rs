//! Random sequences against a model that is obviously right: seconds, no validators, one variant, one rule a line.

use proptest::prelude::*;

use super::{NOW, Shelf, get, response};
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::reuse::{Reuse, ReusePolicy, reuse_on_error};

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    /// The origin answers with this and the cache may store it.
    Fetch(Answer),
    Ask(Question),
    /// A request for which the origin fails.
    Fail,
}

#[derive(Debug, Clone)]
struct Answer {
    max_age: u64,
    s_maxage: Option<u64>,
    age: u64,
    while_revalidate: Option<u64>,
    if_error: Option<u64>,
    must_revalidate: bool,
    no_store: bool,
}

#[derive(Debug, Clone)]
struct Question {
    max_age: Option<u64>,
    min_fresh: Option<u64>,
    max_stale: Option<u64>,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Fresh(u64),
    Stale(u64),
    Forward,
}

/// What the cache should hold, and since when.
#[derive(Default)]
struct Model(Option<(Answer, u64)>);

impl Model {
    fn fetch(&mut self, answer: &Answer, now: u64) {
        let lifetime = answer.s_maxage.unwrap_or(answer.max_age);
        let windows = answer.while_revalidate.unwrap_or(0) + answer.if_error.unwrap_or(0);
        let ever_of_use = lifetime > 0 || (!answer.must_revalidate && windows > 0);
        if !answer.no_store && ever_of_use {
            self.0 = Some((answer.clone(), now));
        }
    }

    fn ask(&self, question: &Question, now: u64) -> Verdict {
        let Some((answer, since)) = &self.0 else {
            return Verdict::Forward;
        };
        let age = answer.age + (now - since);
        let lifetime = answer.s_maxage.unwrap_or(answer.max_age);
        let fresh = lifetime > age;
        let stale_by = age.saturating_sub(lifetime);
        let too_old = question.max_age.is_some_and(|limit| limit == 0 || age > limit);
        if fresh && !too_old && lifetime - age >= question.min_fresh.unwrap_or(0) {
            return Verdict::Fresh(age);
        }
        let barred = fresh || answer.must_revalidate || question.min_fresh.is_some();
        if barred || (too_old && question.max_stale.is_none()) {
            return Verdict::Forward;
        }
        let refreshing = stale_by < answer.while_revalidate.unwrap_or(0);
        let accepted = answer.s_maxage.is_none() && question.max_stale.is_some_and(|limit| stale_by <= limit);
        if refreshing || accepted {
            Verdict::Stale(age)
        } else {
            Verdict::Forward
        }
    }

    fn fail(&self, now: u64) -> bool {
        let Some((answer, since)) = &self.0 else {
            return false;
        };
        let age = answer.age + (now - since);
        let stale_by = age.saturating_sub(answer.s_maxage.unwrap_or(answer.max_age));
        !answer.must_revalidate && stale_by < answer.if_error.unwrap_or(0)
    }
}

impl Answer {
    fn directives(&self) -> String {
        let mut text = format!("max-age={}", self.max_age);
        let optional = [
            ("s-maxage", self.s_maxage),
            ("stale-while-revalidate", self.while_revalidate),
            ("stale-if-error", self.if_error),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                text.push_str(&format!(", {name}={value}"));
            }
        }
        if self.must_revalidate {
            text.push_str(", must-revalidate");
        }
        if self.no_store {
            text.push_str(", no-store");
        }
        text
    }
}

impl Question {
    fn directives(&self) -> String {
        let optional = [
            ("max-age", self.max_age),
            ("min-fresh", self.min_fresh),
            ("max-stale", self.max_stale),
        ];
        let given = optional
            .iter()
            .filter_map(|(name, value)| value.map(|value| format!("{name}={value}")));
        given.collect::<Vec<_>>().join(", ")
    }
}

fn some_seconds() -> impl Strategy<Value = Option<u64>> {
    proptest::option::of(0u64..8)
}

fn step() -> impl Strategy<Value = Step> {
    let answer = (
        0u64..8,
        some_seconds(),
        0u64..4,
        some_seconds(),
        some_seconds(),
        0u8..10,
    )
        .prop_map(|(max_age, s_maxage, age, while_revalidate, if_error, rare)| {
            Step::Fetch(Answer {
                max_age,
                s_maxage,
                age,
                while_revalidate,
                if_error,
                must_revalidate: rare < 2,
                no_store: rare == 9,
            })
        });
    let question = (some_seconds(), some_seconds(), some_seconds()).prop_map(|(max_age, min_fresh, max_stale)| {
        Step::Ask(Question {
            max_age,
            min_fresh,
            max_stale,
        })
    });
    prop_oneof![(0u64..5).prop_map(Step::Wait), answer, question, Just(Step::Fail)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn rfc9111_4_reuse_is_what_the_model_says(steps in proptest::collection::vec(step(), 1..24)) {
        let mut shelf = Shelf::new();
        let mut model = Model::default();
        let mut now = NOW.as_secs();
        for step in steps {
            let time = Timestamp::from_secs(now);
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Fetch(answer) => {
                    let age = answer.age.to_string();
                    let head = response(200, &[("Cache-Control", &answer.directives()), ("Age", &age)]);
                    let _ = shelf.store(&get(&[]), &head, time);
                    model.fetch(&answer, now);
                }
                Step::Ask(question) => {
                    let found = match shelf.reuse(&get(&[("Cache-Control", &question.directives())]), time) {
                        Reuse::Fresh(served) => Verdict::Fresh(u64::from(served.age.get())),
                        Reuse::Stale(_, served) => Verdict::Stale(u64::from(served.age.get())),
                        _ => Verdict::Forward,
                    };
                    prop_assert_eq!(found, model.ask(&question, now), "{:?}", question);
                }
                Step::Fail => {
                    let served = shelf.stored.first().and_then(|(meta, _)| {
                        reuse_on_error(&get(&[]), meta, time, &ReusePolicy::default())
                    });
                    prop_assert_eq!(served.is_some(), model.fail(now));
                }
            }
        }
    }
}
