//! What a shared cache has to do, should do, or is free to do: one table of cases in the names of the public suite of HTTP caching
//! tests (<https://cache-tests.fyi>), so that results can be compared, each case driven over sockets.
//!
//! Where that suite sleeps, the clock is moved on; the origin's dates follow it.

mod ages;
mod conditional;
mod directives;
mod fields;
mod freshness;
mod invalidation;
mod other;
mod partial;
mod run;
mod script;
mod stale;
mod status;
mod targeted;
mod vary;

use self::run::run;
use self::script::{Case, Kind};

/// All cases: at least so many of each kind, so that none gets lost.
const LEAST: [(Kind, usize); 3] = [(Kind::Required, 190), (Kind::Optimal, 110), (Kind::Check, 120)];

fn cases() -> Vec<Case> {
    [
        ages::cases(),
        conditional::cases(),
        directives::cases(),
        fields::cases(),
        freshness::cases(),
        invalidation::cases(),
        other::cases(),
        partial::cases(),
        stale::cases(),
        status::cases(),
        targeted::cases(),
        vary::cases(),
    ]
    .concat()
}

#[tokio::test]
async fn required_and_optimal_behaviour_holds() {
    let cases = cases();
    let mut names: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "names of several cases: {twice:?}");
    for (kind, least) in LEAST {
        let count = cases.iter().filter(|case| case.kind == kind).count();
        assert!(count >= least, "{kind:?}: {count} cases");
    }
    // Fields with tags are kept from clients unless the configuration says otherwise.
    let mut failures = run(&cases, "defaults: { cache: { tag_fields: pass } }\n").await;
    // Not a standard's field, so it counts only where the configuration names it; then by the rules of RFC 9213.
    let surrogate = "cache: { targeted_fields: [Surrogate-Control] }\n";
    failures.extend(run(&targeted::surrogate_cases(), surrogate).await);
    assert!(
        failures.is_empty(),
        "{} of {} cases fail:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}
