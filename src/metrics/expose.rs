//! From counters to the registry's form: the only place where names, labels and figures meet.

use std::sync::{PoisonError, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily};

use super::histogram::Reading;
use super::{
    BytesFrom, CacheResult, Compressed, Family, GateReason, L1, LeaseResult, LimitReason, Metrics, Outcome, PurgeKind,
    RedisFault, RedisOperation, Reload, Settled,
};
use crate::transform::negotiate::Coding;

/// Reads [`Metrics`] for the registry, which in turn belongs to them.
pub(super) struct Exposition {
    metrics: Weak<Metrics>,
    descriptions: Vec<Desc>,
}

impl Exposition {
    /// # Errors
    /// Where the table has a name or label that is none.
    pub(super) fn new(metrics: Weak<Metrics>) -> prometheus::Result<Self> {
        let describe = |family: &Family| {
            let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(
                family.name.to_owned(),
                family.help.to_owned(),
                labels,
                Default::default(),
            )
        };
        Ok(Self {
            metrics,
            descriptions: Family::ALL.iter().map(describe).collect::<prometheus::Result<_>>()?,
        })
    }
}

impl Collector for Exposition {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(metrics) = self.metrics.upgrade() else {
            return Vec::new();
        };
        let mut families = Vec::with_capacity(Family::ALL.len());
        collect_routes(&metrics, &mut families);
        collect_upstreams(&metrics, &mut families);
        collect_limits(&metrics, &mut families);
        collect_redis(&metrics, &mut families);
        collect_process(&metrics, &mut families);
        families
    }
}

fn collect_routes(metrics: &Metrics, families: &mut Vec<MetricFamily>) {
    let mut requests = Samples::of(Family::HTTP_REQUESTS);
    let mut durations = Samples::of(Family::HTTP_DURATION);
    let mut cache = Samples::of(Family::CACHE_REQUESTS);
    let mut bytes = Samples::of(Family::RESPONSE_BYTES);
    let mut streams = Samples::of(Family::STREAMS_ACTIVE);
    let mut first_events = Samples::of(Family::STREAM_FIRST_EVENT);
    for (name, route) in metrics.routes.all() {
        for ((method, status), count) in route.requests() {
            requests.counter(&[&name, method, &status.to_string()], count);
        }
        durations.histogram(&[&name], &route.duration());
        let results = route.cache_results();
        // All or none: a route without a cache has no use for the words.
        if results.iter().any(|count| *count > 0) {
            for (result, count) in CacheResult::ALL.iter().zip(results) {
                cache.counter(&[&name, result.as_str()], count);
            }
        }
        for (from, count) in BytesFrom::ALL.iter().zip(route.bytes_sent()) {
            bytes.counter(&[&name, from.as_str()], count);
        }
        streams.gauge(&[&name], route.streams_active());
        let reading = route.first_events();
        if reading.count() > 0 {
            first_events.histogram(&[&name], &reading);
        }
    }
    families.extend([requests, durations, cache, bytes, streams, first_events].map(MetricFamily::from));
}

fn collect_upstreams(metrics: &Metrics, families: &mut Vec<MetricFamily>) {
    let mut requests = Samples::of(Family::UPSTREAM_REQUESTS);
    let mut durations = Samples::of(Family::UPSTREAM_DURATION);
    let mut queued = Samples::of(Family::UPSTREAM_QUEUED);
    let mut refused = Samples::of(Family::UPSTREAM_QUEUE_REFUSED);
    let mut healthy = Samples::of(Family::UPSTREAM_HEALTHY);
    let mut circuits = Samples::of(Family::CIRCUIT_STATE);
    let mut retries = Samples::of(Family::RETRIES);
    for (name, upstream) in metrics.upstreams.all() {
        let gauges = upstream.gauges();
        for (server, count) in &gauges.healthy {
            healthy.gauge(&[&name, server], *count);
        }
        if let Some(state) = gauges.circuit {
            circuits.gauge(&[&name], state);
        }
        retries.counter(&[&name], upstream.retries());
        for (address, server) in upstream.servers() {
            for (outcome, count) in Outcome::ALL.iter().zip(server.outcomes()) {
                requests.counter(&[&name, &address, outcome.as_str()], count);
            }
        }
        durations.histogram(&[&name], &upstream.durations());
        queued.gauge(&[&name], upstream.queued.value());
        refused.counter(&[&name], upstream.queue_refused.value());
    }
    families.extend([requests, durations, healthy, circuits, retries, queued, refused].map(MetricFamily::from));
}

fn collect_limits(metrics: &Metrics, families: &mut Vec<MetricFamily>) {
    let mut limited = Samples::of(Family::RATE_LIMITED);
    let [mut tokens, mut settled] = [Family::RATE_LIMIT_TOKENS, Family::RATE_LIMIT_SETTLED].map(Samples::of);
    for (name, limit) in metrics.limits.all() {
        for (reason, count) in LimitReason::ALL.iter().zip(limit.all()) {
            limited.counter(&[&name, reason.as_str()], count);
        }
        let (counts, requests) = limit.all_tokens();
        if requests.iter().any(|count| *count > 0) {
            for (state, count) in ["reserved", "used"].into_iter().zip(counts) {
                tokens.counter(&[&name, state], count);
            }
            for (by, count) in Settled::ALL.iter().zip(requests) {
                settled.counter(&[&name, by.as_str()], count);
            }
        }
    }
    let mut bytes = Samples::of(Family::RATE_LIMIT_BYTES);
    if let Some(read) = &*metrics.limiter.lock().unwrap_or_else(PoisonError::into_inner) {
        bytes.gauge(&[], read());
    }
    let mut gauges = [Family::GATE_IN_FLIGHT, Family::GATE_QUEUED, Family::GATE_PLACES].map(Samples::of);
    let mut refused = Samples::of(Family::GATE_REFUSED);
    for (name, gate) in metrics.gates.all() {
        for (samples, value) in gauges.iter_mut().zip(gate.gauges()) {
            samples.gauge(&[&name], value);
        }
        for (reason, count) in GateReason::ALL.iter().zip(gate.all_refused()) {
            refused.counter(&[&name, reason.as_str()], count);
        }
    }
    families.extend([limited, tokens, settled, bytes, refused].map(MetricFamily::from));
    families.extend(gauges.map(MetricFamily::from));
}

fn collect_redis(metrics: &Metrics, families: &mut Vec<MetricFamily>) {
    let Some(redis) = metrics.redis.get() else { return };
    let mut durations = Samples::of(Family::REDIS_DURATION);
    let mut errors = Samples::of(Family::REDIS_ERRORS);
    for operation in RedisOperation::ALL {
        let reading = redis.durations(*operation);
        if reading.count() > 0 {
            durations.histogram(&[operation.as_str()], &reading);
        }
        for fault in RedisFault::ALL {
            let count = redis.faults(*operation, *fault);
            if count > 0 {
                errors.counter(&[operation.as_str(), fault.as_str()], count);
            }
        }
    }
    let mut up = Samples::of(Family::REDIS_UP);
    up.gauge(&[], u64::from(redis.is_up()));
    let mut dropped = Samples::of(Family::REDIS_WRITES_DROPPED);
    dropped.counter(&[], redis.writes_dropped());
    let mut leases = Samples::of(Family::REDIS_LEASES);
    for result in LeaseResult::ALL {
        leases.counter(&[result.as_str()], redis.leases(*result));
    }
    let mut silent = Samples::of(Family::REDIS_SILENT_NODES);
    silent.gauge(&[], redis.silent_nodes());
    let mut heard = Samples::of(Family::LEASES_HEARD);
    heard.gauge(&[], u64::from(redis.are_leases_heard()));
    let mut waits = Samples::of(Family::LEASES_WAITING);
    waits.gauge(&[], redis.leases_waiting());
    let mut followed = Samples::of(Family::COHERENCE_FOLLOWED);
    followed.gauge(&[], u64::from(redis.is_followed()));
    let mut waiting = Samples::of(Family::COHERENCE_WAITING);
    waiting.gauge(&[], redis.purges_waiting());
    families.extend(
        [
            durations, errors, up, silent, leases, heard, waits, dropped, followed, waiting,
        ]
        .map(MetricFamily::from),
    );
}

fn collect_process(metrics: &Metrics, families: &mut Vec<MetricFamily>) {
    if let Some(read) = &*metrics.cache.lock().unwrap_or_else(PoisonError::into_inner) {
        let gauges = read();
        let mut bytes = Samples::of(Family::CACHE_BYTES);
        bytes.gauge(&[L1], gauges.bytes);
        let mut stored_responses = Samples::of(Family::CACHE_STORED_RESPONSES);
        stored_responses.gauge(&[L1], gauges.stored_responses);
        let mut evictions = Samples::of(Family::CACHE_EVICTIONS);
        evictions.counter(&[], gauges.evictions);
        let mut dictionaries = Samples::of(Family::DICTIONARY_BYTES);
        dictionaries.gauge(&[], gauges.dictionary_bytes);
        families.extend([bytes, stored_responses, evictions, dictionaries].map(MetricFamily::from));
    }
    let mut connections = Samples::of(Family::CONNECTIONS);
    for (listener, gauge) in metrics.connections.all() {
        connections.gauge(&[&listener], gauge.value());
    }
    let mut steady = Samples::of(Family::STEADY_CONNECTIONS);
    steady.gauge(&[], metrics.steady_connections.value());
    let mut in_flight = Samples::of(Family::IN_FLIGHT);
    in_flight.gauge(&[], metrics.in_flight.value());
    let mut reloads = Samples::of(Family::CONFIG_RELOADS);
    for (result, counter) in Reload::ALL.iter().zip(&metrics.reloads) {
        reloads.counter(&[result.as_str()], counter.value());
    }
    let mut compressions = Samples::of(Family::COMPRESSIONS);
    for (coding, results) in Coding::ALL.iter().zip(&metrics.compressions) {
        for (result, counter) in Compressed::ALL.iter().zip(results) {
            compressions.counter(&[coding.as_str(), result.as_str()], counter.value());
        }
    }
    let mut purges = Samples::of(Family::CACHE_PURGES);
    for (what, count) in PurgeKind::ALL.iter().zip(&metrics.purges) {
        purges.counter(&[what.as_str()], count.value());
    }
    families.push(purges.into());
    let mut ahead = Samples::of(Family::CACHE_AHEAD);
    ahead.counter(&[], metrics.refreshed_ahead.value());
    families.push(ahead.into());
    let mut log_dropped = Samples::of(Family::LOG_DROPPED);
    log_dropped.counter(&[], metrics.log_dropped.value());
    let mut build_info = Samples::of(Family::BUILD_INFO);
    build_info.gauge(&[env!("CARGO_PKG_VERSION")], 1);
    let process = [
        connections,
        steady,
        in_flight,
        reloads,
        compressions,
        log_dropped,
        build_info,
    ];
    families.extend(process.map(MetricFamily::from));
}

/// The samples of one family, as they come in.
struct Samples {
    family: Family,
    metrics: Vec<Metric>,
}

impl Samples {
    fn of(family: Family) -> Self {
        Self {
            family,
            metrics: Vec::new(),
        }
    }

    fn counter(&mut self, labels: &[&str], value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        self.push(labels, |metric| metric.set_counter(counter));
    }

    fn gauge(&mut self, labels: &[&str], value: u64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value as f64);
        self.push(labels, |metric| metric.set_gauge(gauge));
    }

    fn histogram(&mut self, labels: &[&str], reading: &Reading) {
        let histogram = reading.to_proto();
        self.push(labels, |metric| metric.set_histogram(histogram));
    }

    fn push(&mut self, labels: &[&str], set: impl FnOnce(&mut Metric)) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        let pairs = self.family.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        set(&mut metric);
        self.metrics.push(metric);
    }
}

impl From<Samples> for MetricFamily {
    fn from(samples: Samples) -> Self {
        let mut family = Self::default();
        family.set_name(samples.family.name.to_owned());
        family.set_help(samples.family.help.to_owned());
        family.set_field_type(samples.family.kind);
        family.set_metric(samples.metrics);
        family
    }
}
