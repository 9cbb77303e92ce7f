use proptest::prelude::*;

use super::*;
use crate::config::{Question, Unchecked};

fn check(unhealthy_threshold: u32, healthy_threshold: u32) -> HealthCheck {
    HealthCheck {
        question: Question::Connection,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(3),
        unhealthy_threshold,
        healthy_threshold,
        unchecked: Unchecked::Use,
    }
}

#[test]
fn the_first_answer_decides_and_then_the_thresholds() {
    use Answer::{Bad, Good};
    use Finding::{NotWell, Nothing, Well};
    for (first, answers) in [
        (
            State::Unknown,
            vec![
                (Good, Well),
                (Bad, Nothing),
                (Bad, Nothing),
                (Good, Nothing),
                (Bad, Nothing),
                (Bad, Nothing),
                (Bad, NotWell),
                (Good, Nothing),
                (Bad, Nothing),
                (Good, Nothing),
                (Good, Well),
            ],
        ),
        (State::Unknown, vec![(Bad, NotWell), (Good, Nothing), (Good, Well)]),
        (State::Healthy, vec![(Bad, Nothing), (Bad, Nothing), (Bad, NotWell)]),
    ] {
        let mut tally = Tally::new(&check(3, 2), first);
        for (index, (answer, expected)) in answers.into_iter().enumerate() {
            assert_eq!(tally.count(answer, Standing::In), expected, "answer {index}");
        }
    }
}

#[test]
fn good_answers_end_an_ejection() {
    use Answer::{Bad, Good};
    use Standing::{Ejected, In};
    let mut tally = Tally::new(&check(3, 2), State::Healthy);
    for (answer, standing, expected) in [
        (Good, In, Finding::Nothing),
        (Good, Ejected, Finding::Nothing),
        (Bad, Ejected, Finding::Nothing),
        (Good, Ejected, Finding::Nothing),
        (Good, Ejected, Finding::Recovered),
        (Good, In, Finding::Nothing),
    ] {
        assert_eq!(tally.count(answer, standing), expected);
    }
}

proptest! {
    #[test]
    fn the_state_changes_after_a_row_of_the_threshold_and_never_before(
        answers in prop::collection::vec(any::<bool>(), 1..200),
        unhealthy in 1..6_u32,
        healthy in 1..6_u32,
    ) {
        let mut tally = Tally::new(&check(unhealthy, healthy), State::Unknown);
        let mut is_well = None;
        let (mut row, mut of) = (0, None);
        for good in answers {
            row = if of == Some(good) { row + 1 } else { 1 };
            of = Some(good);
            let answer = if good { Answer::Good } else { Answer::Bad };
            let finding = tally.count(answer, Standing::In);
            let needed = match (is_well, good) {
                (None, _) => 1,
                (Some(_), true) => healthy,
                (Some(_), false) => unhealthy,
            };
            let changes = is_well != Some(good) && row >= needed;
            let expected = match (changes, good) {
                (false, _) => Finding::Nothing,
                (true, true) => Finding::Well,
                (true, false) => Finding::NotWell,
            };
            prop_assert_eq!(finding, expected);
            if changes {
                is_well = Some(good);
            }
        }
    }
}
