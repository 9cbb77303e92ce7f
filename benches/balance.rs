//! What it costs to choose one of a hundred servers, by each balance: read the zone, choose, count the exchange in and out.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use forebay::clock::Clock;
use forebay::config::{Balance, HashKey, ServerAddress, Upstream as UpstreamConfig, UpstreamServer};
use forebay::metrics::Metrics;
use forebay::upstream::{Selection, Tried, Upstream};
use tokio::time::Instant;

const SERVERS: u8 = 100;

#[expect(clippy::expect_used, reason = "a bench that cannot be set up has to end")]
fn upstream(balance: Balance) -> Arc<Upstream> {
    let servers = (0..SERVERS).map(|host| {
        let address = ServerAddress::Tcp {
            host: format!("10.0.0.{host}"),
            port: 3000,
        };
        UpstreamServer {
            weight: 1 + u32::from(host % 3),
            ..UpstreamServer::new(address)
        }
    });
    let config = UpstreamConfig {
        balance,
        ..UpstreamConfig::new("app", servers.collect())
    };
    let upstream = Upstream::new(&config, &Metrics::new(), &Clock::new(), None).expect("no file is named");
    for (index, member) in upstream.zone().members().iter().enumerate() {
        // At work, so that nobody is the least busy at first sight.
        for _ in 0..10 + index % 5 {
            member.server.load.enter(None);
        }
        let latency = Duration::from_millis(5 + index as u64 % 20);
        member.server.load.answered(latency, Instant::now());
    }
    Arc::new(upstream)
}

fn choose(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("choose_of_100");
    for balance in [
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::LeastTime,
        Balance::Random,
        Balance::ClientIp,
        Balance::Hash(HashKey::Path),
    ] {
        let name = balance.to_string();
        let upstream = upstream(balance);
        let tried = Tried::default();
        let mut key = 0_u64;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let selection = Selection {
                    hash: Some(key),
                    ..Selection::default()
                };
                upstream.choose(black_box(&selection), &tried, |member| member.server.load.open())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, choose);
criterion_main!(benches);
