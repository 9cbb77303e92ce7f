//! Upstreams made from a configuration, without sockets.

use std::sync::Arc;

use super::*;
use crate::config::{Config, Environment};

/// The only upstream of a file that has these keys.
pub(super) fn config(keys: &str) -> config::Upstream {
    let yaml = format!("listen: 127.0.0.1:0\nupstreams: {{ app: {{ {keys} }} }}\n");
    let loaded =
        Config::parse("f.yaml", &yaml, &Environment::fixed([])).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
    loaded.config.upstreams.into_iter().next().unwrap()
}

pub(super) fn upstream(keys: &str) -> Arc<Upstream> {
    Arc::new(Upstream::new(&config(keys), &Metrics::new(), &Clock::new(), None).unwrap())
}

/// `servers: [...]` of this many servers of one weight.
pub(super) fn servers(count: usize) -> String {
    let list: Vec<String> = (0..count).map(|server| format!("\"10.0.0.{server}:3000\"")).collect();
    format!("servers: [{}]", list.join(", "))
}

/// The label of the server that would get such a request, without giving it to it.
pub(super) fn chosen(upstream: &Arc<Upstream>, selection: &Selection, tried: &Tried) -> Option<String> {
    upstream.choose(selection, tried, |member| member.server.label.to_string())
}

pub(super) fn server(upstream: &Arc<Upstream>, index: usize) -> Arc<Server> {
    upstream.zone().members()[index].server.clone()
}

#[tokio::test]
async fn a_drained_server_gets_nothing_new_until_it_is_enabled() {
    let upstream = upstream("servers: [\"10.0.0.1:1\", \"10.0.0.2:1\"]");
    let open = |upstream: &Arc<Upstream>| match upstream.offer(&Selection::default(), &Tried::default()) {
        Offer::Open(open) => open,
        _ => panic!("nobody"),
    };
    let under_way = open(&upstream);
    let label = under_way.server().label.clone();
    assert!(upstream.drain(&label));
    assert_eq!(under_way.server().load.open(), 1, "what is open stays open");
    for _ in 0..10 {
        assert_ne!(open(&upstream).server().label, label);
    }
    assert!(upstream.enable(&label));
    assert!((0..10).any(|_| open(&upstream).server().label == label));
    assert!(!upstream.drain("10.0.0.3:1"), "there is no such server");
}

#[tokio::test]
async fn backups_are_for_when_no_other_is_left() {
    let upstream = upstream("servers: [\"10.0.0.1:1\", \"10.0.0.2:1\", { address: \"10.0.0.9:1\", backup: true }]");
    let none = Selection::default();
    let mut tried = Tried::default();
    for _ in 0..10 {
        assert_ne!(chosen(&upstream, &none, &tried).unwrap(), "10.0.0.9:1");
    }
    assert!(upstream.drain("10.0.0.1:1"));
    assert_eq!(chosen(&upstream, &none, &tried).unwrap(), "10.0.0.2:1");
    tried.add(server(&upstream, 1).id);
    assert_eq!(
        chosen(&upstream, &none, &tried).unwrap(),
        "10.0.0.9:1",
        "after a vain try"
    );
    assert!(upstream.drain("10.0.0.2:1"));
    assert_eq!(chosen(&upstream, &none, &Tried::default()).unwrap(), "10.0.0.9:1");
    assert!(upstream.drain("10.0.0.9:1"));
    assert_eq!(chosen(&upstream, &none, &Tried::default()), None);
    assert!(upstream.enable("10.0.0.1:1"));
    assert_eq!(chosen(&upstream, &none, &Tried::default()).unwrap(), "10.0.0.1:1");
}

#[tokio::test]
async fn a_choice_sees_what_happened_after_the_zone_was_laid_out() {
    for balance in ["round_robin", "least_connections", "least_time", "random", "client_ip"] {
        let upstream = upstream(&format!("balance: {balance}, {}", servers(3)));
        server(&upstream, 1).health.set_ejected(Instant::now());
        for key in 0..100_u64 {
            let selection = Selection {
                hash: Some(key.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                ..Selection::default()
            };
            let label = chosen(&upstream, &selection, &Tried::default()).unwrap();
            assert_ne!(label, "10.0.0.1:3000", "{balance}");
        }
    }
}

mod queue;
