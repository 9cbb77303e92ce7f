use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::upstream::tests::{chosen, config, server, servers, upstream};
use crate::upstream::{Choice, Member, Server, Upstream, Zone};

#[test]
fn turns_follow_the_weights_and_are_spread() {
    for (weights, expected) in [
        (vec![], vec![]),
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

/// How many of so many requests each server gets, where none is under way for long.
fn shares(upstream: &Arc<Upstream>, requests: u64) -> BTreeMap<String, u64> {
    let mut shares = BTreeMap::new();
    for number in 0..requests {
        let selection = Selection {
            hash: Some(xxh3_64_with_seed(b"request", number)),
            ..Selection::default()
        };
        *shares
            .entry(chosen(upstream, &selection, &Tried::default()).unwrap())
            .or_default() += 1;
    }
    shares
}

/// Five standard deviations of the binomial law: wrong once in two million.
fn assert_share(got: u64, of: u64, share: f64, more: f64, what: &str) {
    let expected = of as f64 * share;
    let tolerance = 5.0 * (expected * (1.0 - share)).sqrt() + expected * more;
    assert!(
        (got as f64 - expected).abs() <= tolerance,
        "{what}: {got} of {of}, expected {expected} ± {tolerance}"
    );
}

#[test]
fn idle_servers_share_by_weight() {
    let weighted = "servers: [{ address: \"10.0.0.1:1\", weight: 1 }, { address: \"10.0.0.2:1\", weight: 2 }, { address: \"10.0.0.3:1\", weight: 5 }]";
    let requests = 40_000;
    // Shares of a ring have a standard deviation of 1/√160 of themselves beside that of the draw.
    for (balance, more) in [
        ("round_robin", 0.0),
        ("least_connections", 0.0),
        ("random", 0.0),
        ("client_ip", 0.25),
        ("hash, hash_key: path", 0.25),
    ] {
        let shares = shares(&upstream(&format!("balance: {balance}, {weighted}")), requests);
        for (label, weight) in [("10.0.0.1:1", 1.0), ("10.0.0.2:1", 2.0), ("10.0.0.3:1", 5.0)] {
            assert_share(shares[label], requests, weight / 8.0, more, balance);
        }
    }
}

#[test]
fn least_connections_fills_up_by_weight() {
    let upstream = upstream(
        "balance: least_connections, servers: [{ address: \"10.0.0.1:1\", weight: 1 }, { address: \"10.0.0.2:1\", weight: 3 }]",
    );
    // Like streams, which stay.
    for _ in 0..80 {
        let label = chosen(&upstream, &Selection::default(), &Tried::default()).unwrap();
        let index = usize::from(label == "10.0.0.2:1");
        assert!(server(&upstream, index).load.enter(None));
    }
    let open = (server(&upstream, 0).load.open(), server(&upstream, 1).load.open());
    assert!((19..=21).contains(&open.0), "{open:?}");
}

#[test]
fn two_random_choices_avoid_the_busiest() {
    let upstream = upstream(&format!("balance: random, {}", servers(3)));
    for _ in 0..10 {
        assert!(server(&upstream, 0).load.enter(None));
    }
    // It is chosen only where both draws name it, and then another is taken: never.
    assert!(!shares(&upstream, 1000).contains_key("10.0.0.0:3000"));
}

#[tokio::test(start_paused = true)]
async fn least_time_keeps_away_from_who_is_slow_until_that_is_long_ago() {
    let upstream = upstream(&format!("balance: least_time, {}", servers(3)));
    let answer = |index, ms| {
        let server: Arc<Server> = server(&upstream, index);
        server.load.answered(Duration::from_millis(ms), Instant::now());
    };
    for (index, ms) in [(0, 10), (1, 10), (2, 100)] {
        answer(index, ms);
    }
    let before = shares(&upstream, 3000);
    assert!(!before.contains_key("10.0.0.2:3000"), "{before:?}");
    assert_share(before["10.0.0.0:3000"], 3000, 0.5, 0.0, "equals");
    tokio::time::advance(Duration::from_secs(25)).await;
    answer(0, 10);
    answer(1, 10);
    let after = shares(&upstream, 3000);
    assert!(
        after.get("10.0.0.2:3000").is_some_and(|count| *count > 1000),
        "it is asked again: {after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_gets_its_share_slowly() {
    for balance in ["round_robin", "random", "client_ip"] {
        let upstream = upstream(&format!("balance: {balance}, slow_start: 10s, {}", servers(4)));
        let label = "10.0.0.1:3000";
        let requests = 20_000;
        let full = shares(&upstream, requests)[label] as f64;
        assert!(upstream.drain(label));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(upstream.enable(label));
        let mut last = 0.0;
        for second in [1, 5, 9] {
            let at = Instant::now();
            tokio::time::advance(Duration::from_secs(second) - Duration::from_secs(last as u64)).await;
            let part = shares(&upstream, requests).get(label).copied().unwrap_or(0) as f64 / full;
            let expected = second as f64 / 10.0;
            // Not exactly the expected part: others that are passed over get another draw.
            assert!(
                (part - expected).abs() < 0.12,
                "{balance}: {part} after {second} s, {at:?}"
            );
            last = second as f64;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        let part = shares(&upstream, requests)[label] as f64 / full;
        assert!((part - 1.0).abs() < 0.12, "{balance}: {part} at the end");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_starts_of_all_at_once_refuse_nobody() {
    for balance in ["round_robin", "least_connections", "least_time", "random", "client_ip"] {
        let upstream = upstream(&format!("balance: {balance}, slow_start: 10s, {}", servers(2)));
        for label in ["10.0.0.0:3000", "10.0.0.1:3000"] {
            assert!(upstream.drain(label) && upstream.enable(label));
        }
        assert_eq!(shares(&upstream, 100).values().sum::<u64>(), 100, "{balance}");
    }
}

#[test]
fn a_key_keeps_its_server_while_others_come_and_go() {
    let ten = upstream(&format!("balance: client_ip, {}", servers(10)));
    let eleven = upstream(&format!("balance: client_ip, {}", servers(11)));
    let keys = 20_000;
    let mut moved = 0;
    for number in 0..keys {
        let selection = Selection {
            hash: Some(xxh3_64_with_seed(b"client", number)),
            ..Selection::default()
        };
        let (before, after) = (
            chosen(&ten, &selection, &Tried::default()).unwrap(),
            chosen(&eleven, &selection, &Tried::default()).unwrap(),
        );
        if before != after {
            assert_eq!(after, "10.0.0.10:3000");
            moved += 1;
        }
    }
    assert_share(moved, keys, 1.0 / 11.0, 0.3, "moved keys");

    // One of them falls ill: its keys go to others, theirs stay.
    let before: Vec<String> = (0..1000).map(|key| of_key(&ten, key)).collect();
    assert!(ten.drain("10.0.0.4:3000"));
    for (key, was) in before.iter().enumerate() {
        let is = of_key(&ten, key as u64);
        assert_eq!(is == *was, was != "10.0.0.4:3000");
    }
}

fn of_key(upstream: &Arc<Upstream>, key: u64) -> String {
    let selection = Selection {
        hash: Some(xxh3_64_with_seed(b"key", key)),
        ..Selection::default()
    };
    chosen(upstream, &selection, &Tried::default()).unwrap()
}

#[test]
fn every_balance_tries_every_server_once() {
    for balance in ["round_robin", "least_connections", "least_time", "random", "client_ip"] {
        let upstream = upstream(&format!("balance: {balance}, {}", servers(5)));
        let zone = upstream.zone();
        let mut tried = Tried::default();
        for turn in 0..5 {
            let selection = Selection {
                hash: Some(7),
                ..Selection::default()
            };
            let Choice::Server(member) = zone.choose(&selection, &tried, Turn(turn)) else {
                panic!("{balance}: nobody at turn {turn}");
            };
            assert!(!tried.contains(member.server.id));
            tried.add(member.server.id);
        }
        assert!(matches!(
            zone.choose(&Selection::default(), &tried, Turn(5)),
            Choice::Nobody
        ));
    }
}

#[test]
fn without_servers_there_is_nobody() {
    for balance in ["round_robin", "least_connections", "least_time", "random", "client_ip"] {
        let config = config(&format!("balance: {balance}, {}", servers(1)));
        let zone = Zone::new(config.balance, Duration::ZERO, Vec::<Member>::new());
        let selection = Selection {
            hash: Some(7),
            ..Selection::default()
        };
        assert!(matches!(
            zone.choose(&selection, &Tried::default(), Turn(1)),
            Choice::Nobody
        ));
    }
}
