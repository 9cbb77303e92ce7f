//! Forebay inside the test's own process, with a clock that the test moves: freshness needs no sleeping.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forebay::cache::coherence::Recorded;
use forebay::cache::purge::{How, Purge, Purged, What};
use forebay::clock::Clock;
use forebay::config::{Config, Environment, ListenAddress};
use forebay::limit::refused::RefusedKey;
use forebay::proxy::Proxy;
use forebay::rfc9111::date::{Timestamp, format_http_date};
use forebay::server::Server;
use serde_json::Value;
use tempfile::TempDir;

use super::client::{Client, Response};
use super::origin::Origin;
use super::proxy::{config, sum};
use super::within;

/// A running Forebay. It ends with the test's runtime.
pub struct Inside {
    clock: Clock,
    server: Server,
    directory: TempDir,
}

impl Inside {
    /// One listener, this origin as the only upstream, and these further sections of the file.
    pub async fn before(origin: &Origin, sections: &str) -> Self {
        Self::start(&config(origin, sections), Clock::new()).await
    }

    /// As [`Inside::before`], with a clock that others have, too.
    pub async fn with_clock(origin: &Origin, sections: &str, clock: &Clock) -> Self {
        Self::start(&config(origin, sections), clock.clone()).await
    }

    /// This configuration, with a metrics listener and an access log of its own.
    pub async fn start(yaml: &str, clock: Clock) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("access.log");
        let yaml = format!(
            "{yaml}\nmetrics: {{ listen: 127.0.0.1:0 }}\nlog: {{ access: {{ format: json, path: {} }} }}\n",
            log.display()
        );
        let loaded = Config::parse("forebay.yaml", &yaml, &Environment::fixed([]))
            .unwrap_or_else(|errors| panic!("{errors}\nin\n{yaml}"));
        let server = Server::start(loaded.config, clock.clone(), None).unwrap();
        Self {
            clock,
            server,
            directory,
        }
    }

    /// Moves Forebay's clock on.
    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// What Forebay takes for the time.
    pub fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub fn address(&self) -> SocketAddr {
        match self.server.addresses.first() {
            Some(ListenAddress::Tcp(address)) => *address,
            other => panic!("not a TCP listener: {other:?}"),
        }
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.server.admin_address.expect("there is an admin listener")
    }

    /// A connection to the first listener.
    pub async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// What serves the requests.
    pub fn proxy(&self) -> &Proxy {
        self.server.proxy()
    }

    /// Purges hard.
    pub async fn purge(&self, what: What) -> Purged {
        let how = How::Hard;
        self.server.proxy().purge(&Purge { what, how }).await.purged
    }

    /// Purges hard, and says who knows of it.
    pub async fn purge_for_all(&self, what: What) -> Recorded {
        let how = How::Hard;
        self.server.proxy().purge(&Purge { what, how }).await.recorded
    }

    /// Waits until the purges of all instances are followed, or are not.
    pub async fn follows(&self, followed: bool) {
        self.metric_becomes("forebay_coherence_followed", &[], f64::from(u8::from(followed)))
            .await;
    }

    /// Makes stale.
    pub async fn purge_softly(&self, what: What) -> Purged {
        let how = How::Soft;
        self.server.proxy().purge(&Purge { what, how }).await.purged
    }

    /// How many stored responses a purge would be about.
    pub async fn count_purged(&self, what: &What) -> u64 {
        self.server.proxy().count_purged(what).await
    }

    /// One GET on a connection of its own.
    pub async fn get(&self, target: &str) -> Response {
        self.client().await.get(target).await
    }

    /// One request on a connection of its own.
    pub async fn request(&self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Response {
        self.client().await.request(method, target, fields, body).await
    }

    /// The sum over all series of this name that have these labels; 0 if there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&self.metrics().await, name, labels)
    }

    /// Asks for a metric until it has this value. For what is counted behind the end of a response.
    pub async fn metric_becomes(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        within(&format!("{name}{labels:?} to be {wanted}"), async {
            while self.metric(name, labels).await != wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// How often the cache came to this result.
    pub async fn cache_results(&self, result: &str) -> f64 {
        self.metric("forebay_cache_requests_total", &[("result", result)]).await
    }

    /// Waits until so many requests are under way.
    pub async fn in_flight(&self, count: usize) {
        self.metric_becomes("forebay_in_flight", &[], count as f64).await;
    }

    /// Responses in memory; waits until there are so many.
    pub async fn stored(&self, count: usize) {
        let tier = [("tier", "l1")];
        self.metric_becomes("forebay_cache_stored_responses", &tier, count as f64)
            .await;
    }

    /// Instances that count limits in the same Redis, as far as this one knows.
    pub fn known_instances(&self) -> u32 {
        let generation = self.server.proxy().generation();
        generation.limiter.shared.get().map_or(0, |shared| shared.instances())
    }

    /// The keys that each limit refuses most.
    pub fn most_refused(&self) -> Vec<(Arc<str>, Vec<RefusedKey>)> {
        self.server.proxy().generation().limiter.most_refused(10)
    }

    /// Waits for the access log's entry that is as told.
    pub async fn log_entry(&self, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let path = self.log_path();
        within("an access log entry", async {
            loop {
                let text = tokio::fs::read_to_string(&path).await.unwrap_or_default();
                let entries = text
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap_or(Value::Null));
                if let Some(entry) = entries.into_iter().find(|entry| holds(entry)) {
                    return entry;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    /// The first entries of the access log, in the order in which the requests ended; waits until there are so many.
    pub async fn log_entries(&self, count: usize) -> Vec<Value> {
        let path = self.log_path();
        within("access log entries", async {
            loop {
                let text = tokio::fs::read_to_string(&path).await.unwrap_or_default();
                // What stands behind the last end of a line is still being written.
                let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
                let entries: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                if entries.len() >= count {
                    return entries;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    /// Everything that the metrics listener says.
    pub async fn metrics(&self) -> String {
        let address = self.server.metrics_address.expect("there is a metrics listener");
        Client::connect(address).await.get("/metrics").await.text().to_owned()
    }

    /// The access log.
    pub fn log_path(&self) -> PathBuf {
        self.directory.path().join("access.log")
    }
}

/// That many seconds from a time, as a field's value (RFC 9110 §5.6.7).
pub fn http_date(time: SystemTime, offset: i64) -> String {
    let now = Timestamp::from(time).as_secs();
    format_http_date(Timestamp::from_secs(now.saturating_add_signed(offset)))
}
