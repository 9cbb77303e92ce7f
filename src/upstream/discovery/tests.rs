use super::*;
use crate::clock::Clock;
use crate::upstream::tests::{config, upstream};

fn labels(upstream: &Arc<Upstream>) -> Vec<(String, u32, Role)> {
    let zone = upstream.zone();
    let members = zone.members().iter();
    members
        .map(|member| (member.server.label.to_string(), member.weight, member.role))
        .collect()
}

fn service(address: &str, weight: u16, priority: u16) -> Service {
    Service {
        address: address.parse().unwrap(),
        weight,
        priority,
    }
}

#[tokio::test]
async fn names_become_servers_with_what_is_said_of_the_name() {
    let upstream = upstream(
        "servers: [\"10.0.0.1:1\", { address: \"app.test:80\", weight: 3, max_connections: 7 }, \"srv:_http._tcp.app.test\"]",
    );
    assert_eq!(labels(&upstream), [("10.0.0.1:1".to_owned(), 1, Role::Main)]);
    upstream.found(|found| {
        found.hosts.insert(
            "app.test".to_owned(),
            vec!["10.0.0.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
        );
        let services = vec![
            service("10.0.0.3:3000", 0, 5),
            service("10.0.0.4:3001", 20, 5),
            service("10.0.0.5:3002", 20, 6),
            // Known already.
            service("10.0.0.1:1", 9, 5),
        ];
        found.services.insert("_http._tcp.app.test".to_owned(), services);
    });
    assert_eq!(
        labels(&upstream),
        [
            ("10.0.0.1:1".to_owned(), 1, Role::Main),
            ("10.0.0.2:80".to_owned(), 3, Role::Main),
            ("[2001:db8::2]:80".to_owned(), 3, Role::Main),
            ("10.0.0.3:3000".to_owned(), 1, Role::Main),
            ("10.0.0.4:3001".to_owned(), 20, Role::Main),
            ("10.0.0.5:3002".to_owned(), 20, Role::Backup),
        ]
    );
    assert_eq!(upstream.zone().members()[2].max_connections, Some(7));
}

#[tokio::test(start_paused = true)]
async fn who_stays_is_the_same_server_and_who_joins_begins_slowly() {
    let upstream = upstream("servers: [\"10.0.0.1:1\", \"app.test:80\"]");
    let before = upstream.zone().members()[0].server.clone();
    before.health.drain(Instant::now());
    upstream.found(|found| {
        found
            .hosts
            .insert("app.test".to_owned(), vec!["10.0.0.2".parse().unwrap()]);
    });
    let zone = upstream.zone();
    assert!(Arc::ptr_eq(&before, &zone.members()[0].server));
    assert!(before.health.is_drained());
    let now = crate::upstream::health::nanos(Instant::now());
    assert_eq!(zone.members()[1].server.health.since_back(now), Some(0));
}

#[tokio::test]
async fn another_configuration_takes_over_what_is_known() {
    let upstream = upstream("servers: [\"10.0.0.1:1\", \"app.test:80\"]");
    upstream.found(|found| {
        found
            .hosts
            .insert("app.test".to_owned(), vec!["10.0.0.2".parse().unwrap()]);
    });
    let same = |changed: &Arc<Upstream>| {
        let (old, new) = (upstream.zone(), changed.zone());
        let is_same = |index: usize| Arc::ptr_eq(&old.members()[index].server, &new.members()[index].server);
        (is_same(0), is_same(1))
    };
    let metrics = crate::metrics::Metrics::new();
    let weighed = config("servers: [{ address: \"10.0.0.1:1\", weight: 9 }, \"app.test:80\"], balance: least_time");
    let changed = Arc::new(Upstream::new(&weighed, &metrics, &Clock::new(), Some(&upstream)).unwrap());
    assert_eq!(same(&changed), (true, true));
    assert_eq!(labels(&changed)[0].1, 9);

    // Connected in another way, they are others; what is known of them stays.
    upstream.zone().members()[1].server.health.drain(Instant::now());
    let other = config("servers: [\"10.0.0.1:1\", \"app.test:80\"], http2: true");
    let changed = Arc::new(Upstream::new(&other, &metrics, &Clock::new(), Some(&upstream)).unwrap());
    assert_eq!(same(&changed), (false, false));
    assert!(changed.zone().members()[1].server.health.is_drained());

    // A name that is no longer asked for is forgotten.
    let without = config("servers: [\"10.0.0.1:1\"]");
    let changed = Arc::new(Upstream::new(&without, &metrics, &Clock::new(), Some(&upstream)).unwrap());
    assert_eq!(changed.zone().members().len(), 1);
    assert!(changed.discovery.found.lock().hosts.is_empty());
}
