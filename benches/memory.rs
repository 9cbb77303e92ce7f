//! What L1's orders of eviction are worth: hit ratios on traces, time and memory for each operation, beside those of libraries.
//!
//! `cargo bench --bench memory` runs all; `-- hits`, `-- time`, `-- space`, `-- churn` only that part. Everything is drawn from fixed seeds.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use forebay::cache::{Memory, PackedFields, Stored};
use forebay::config::Eviction;
use forebay::key::{CacheKey, KeyOptions};
use forebay::message::{Fields, Framing, RequestHead, Scheme, Version};
use forebay::rfc9111::date::{Millis, Seconds, Timestamp};
use forebay::rfc9111::freshness::{Lifetime, LifetimeSource};
use forebay::rfc9111::stored::{Rare, Restrictions, StoredMeta};
use forebay::rfc9111::validation::Validators;
use forebay::rfc9111::vary::VariantKey;
use http::Method;

/// Things that are asked for again and again.
const POPULATION: usize = 50_000;
/// Requests of a trace.
const REQUESTS: usize = 500_000;
/// A scan asks once for so many things that nobody asks for again, after so many other requests.
const SCAN: usize = POPULATION / 5;
const BETWEEN_SCANS: usize = 50_000;
/// Stored responses whose memory is measured.
const STORED: usize = 1_000_000;
const THREADS: usize = 2;
/// How long responses come and go.
const CHURN: Duration = Duration::from_secs(60);

fn main() {
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    if wanted("hits") {
        hits();
    }
    if wanted("time") {
        time();
    }
    if wanted("space") {
        space();
    }
    if wanted("churn") {
        churn();
    }
}

/// A cache of equally large responses.
trait Candidate: Sync {
    fn get(&self, key: &CacheKey) -> bool;
    fn put(&self, key: &CacheKey, stored: &Arc<Stored>);
}

const CANDIDATES: [&str; 7] = [
    "s3_fifo",
    "lru",
    "lfu",
    "quick_cache",
    "TinyUFO",
    "moka lru",
    "moka tinylfu",
];

/// `capacity`: number of responses.
fn candidate(name: &str, capacity: usize, stored: &Arc<Stored>) -> Box<dyn Candidate> {
    let own = |eviction| {
        let one = Memory::new(u64::MAX, eviction);
        one.store("", &key(0), stored.clone());
        Box::new(Memory::new(one.used() * capacity as u64, eviction))
    };
    match name {
        "s3_fifo" => own(Eviction::S3Fifo),
        "lru" => own(Eviction::Lru),
        "lfu" => own(Eviction::Lfu),
        "quick_cache" => Box::new(quick_cache::sync::Cache::new(capacity)),
        "TinyUFO" => Box::new(tinyufo::TinyUfo::new(capacity, capacity)),
        "moka lru" => Box::new(moka(capacity, moka::policy::EvictionPolicy::lru())),
        _ => Box::new(moka(capacity, moka::policy::EvictionPolicy::tiny_lfu())),
    }
}

fn moka(capacity: usize, policy: moka::policy::EvictionPolicy) -> moka::sync::Cache<CacheKey, Arc<Stored>> {
    moka::sync::Cache::builder()
        .max_capacity(capacity as u64)
        .eviction_policy(policy)
        .build()
}

impl Candidate for Memory {
    fn get(&self, key: &CacheKey) -> bool {
        black_box(Memory::get(self, key)).is_some()
    }

    fn put(&self, key: &CacheKey, stored: &Arc<Stored>) {
        self.store("", key, stored.clone());
    }
}

impl Candidate for quick_cache::sync::Cache<CacheKey, Arc<Stored>> {
    fn get(&self, key: &CacheKey) -> bool {
        black_box(self.get(key)).is_some()
    }

    fn put(&self, key: &CacheKey, stored: &Arc<Stored>) {
        self.insert(key.clone(), stored.clone());
    }
}

impl Candidate for tinyufo::TinyUfo<CacheKey, Arc<Stored>> {
    fn get(&self, key: &CacheKey) -> bool {
        black_box(self.get(key)).is_some()
    }

    fn put(&self, key: &CacheKey, stored: &Arc<Stored>) {
        self.put(key.clone(), stored.clone(), 1);
    }
}

impl Candidate for moka::sync::Cache<CacheKey, Arc<Stored>> {
    fn get(&self, key: &CacheKey) -> bool {
        black_box(self.get(key)).is_some()
    }

    fn put(&self, key: &CacheKey, stored: &Arc<Stored>) {
        self.insert(key.clone(), stored.clone());
    }
}

fn hits() {
    let keys: Vec<CacheKey> = (0..POPULATION + REQUESTS).map(key).collect();
    let stored = Arc::new(stored(Bytes::from_static(&[b'x'; 1024])));
    println!("hit ratio in percent, {REQUESTS} requests for {POPULATION} responses");
    println!(
        "{:<18}{:>5}  {}",
        "trace",
        "size",
        CANDIDATES.map(|name| format!("{name:>13}")).concat()
    );
    for (name, trace) in [
        ("zipf 0.8", zipf(0.8)),
        ("zipf 0.9", zipf(0.9)),
        ("zipf 1.0", zipf(1.0)),
        ("zipf 0.8 + scans", with_scans(zipf(0.8))),
        ("zipf 1.0 + scans", with_scans(zipf(1.0))),
        ("shifting zipf 1.0", shifting(zipf(1.0))),
    ] {
        for percent in [1, 10, 50] {
            let row = CANDIDATES.map(|name| {
                let cache = candidate(name, POPULATION * percent / 100, &stored);
                let found = trace.iter().filter(|index| {
                    let Some(key) = keys.get(**index) else { return false };
                    let found = cache.get(key);
                    if !found {
                        cache.put(key, &stored);
                    }
                    found
                });
                format!("{:>13.2}", found.count() as f64 * 100.0 / trace.len() as f64)
            });
            println!("{name:<18}{percent:>4}%  {}", row.concat());
        }
    }
}

fn time() {
    let keys: Vec<CacheKey> = (0..POPULATION).map(key).collect();
    let stored = Arc::new(stored(Bytes::from_static(&[b'x'; 1024])));
    let trace = zipf(1.0);
    println!("\nns of processor time for an operation on each of {THREADS} threads at once");
    println!("{:<24}{}", "", CANDIDATES.map(|name| format!("{name:>13}")).concat());
    for (name, percent, fills) in [
        ("get, all hits", 200, true),
        ("get, else put; 10 %", 10, false),
        ("put only; 10 %", 10, false),
    ] {
        let row = CANDIDATES.map(|candidate_name| {
            let cache = candidate(candidate_name, POPULATION * percent / 100, &stored);
            if fills {
                keys.iter().for_each(|key| cache.put(key, &stored));
            }
            let nanos = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (cache, keys, trace, stored, nanos) = (&cache, &keys, &trace, &stored, &nanos);
                    scope.spawn(move || {
                        let from = thread * trace.len() / THREADS;
                        let start = processor_time();
                        for index in trace.iter().cycle().skip(from).take(trace.len()) {
                            let Some(key) = keys.get(*index) else { continue };
                            match name {
                                "put only; 10 %" => cache.put(key, stored),
                                _ if !cache.get(key) => cache.put(key, stored),
                                _ => {}
                            }
                        }
                        nanos.fetch_add(processor_time() - start, Ordering::Relaxed);
                    });
                }
            });
            format!("{:>13}", nanos.into_inner() / (THREADS * trace.len()) as u64)
        });
        println!("{name:<24}{}", row.concat());
    }
}

/// What a stored response takes, by the system's own count of resident memory.
fn space() {
    let before = resident();
    let memory = Memory::new(u64::MAX, Eviction::S3Fifo);
    let mut parts = 0;
    for index in 0..STORED {
        let (key, stored) = (key(index), stored(Bytes::from(vec![b'x'; 1024])));
        let lines = stored.fields.unpack();
        let head: usize = lines
            .iter()
            .map(|(name, value)| name.len() + value.len() + ": \r\n".len())
            .sum();
        parts += (key.as_bytes().len() + head + stored.body.len()) as u64;
        memory.store("", &key, Arc::new(stored));
    }
    let [resident, counted, parts] = [resident() - before, memory.used(), parts].map(|bytes| bytes / STORED as u64);
    println!("\nbytes for each of {STORED} stored responses, head of 6 lines, body of 1 KiB");
    println!(
        "resident {resident}, counted {counted}; key, head and body {parts}, so {} more",
        resident - parts
    );
}

/// How much memory is resident while responses of all sizes come and go.
fn churn() {
    const SIZE: u64 = 512 << 20;
    const PHASES: u64 = 12;
    let memory = Memory::new(SIZE, Eviction::S3Fifo);
    let before = resident();
    let most = AtomicU64::new(0);
    let stores = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (memory, most, stores) = (&memory, &most, &stores);
            scope.spawn(move || {
                let mut rng = Rng::with_seed(thread as u64);
                // What is stored changes between mostly small, mostly large and all sizes.
                while start.elapsed() < CHURN {
                    let phase = start.elapsed().as_millis() as u64 * PHASES / CHURN.as_millis() as u64;
                    let (from, to) = match phase % 3 {
                        0 => (7, 23),
                        1 => (7, 16),
                        _ => (14, 23),
                    };
                    let length = (1 << rng.u32(from..to)) + rng.usize(..1 << from) * rng.usize(1..3);
                    // As it comes from an origin: in pieces of a read buffer, then in one.
                    let pieces: Vec<Vec<u8>> = (0..length.div_ceil(32 << 10)).map(|_| vec![b'x'; 32 << 10]).collect();
                    let mut body = BytesMut::with_capacity(length);
                    for piece in &pieces {
                        let rest = length - body.len();
                        body.extend_from_slice(piece.get(..rest).unwrap_or(piece));
                    }
                    let key = key(rng.usize(..1_000_000));
                    if memory.get(&key).is_none() {
                        memory.store("", &key, Arc::new(stored(body.freeze())));
                        if stores.fetch_add(1, Ordering::Relaxed).is_multiple_of(64) {
                            most.fetch_max(resident() - before, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "\nMiB after {} s of {} stores of all sizes into {}",
        CHURN.as_secs(),
        stores.into_inner(),
        mib(SIZE)
    );
    println!(
        "counted {}, resident {}, at most {}; allowed {}",
        mib(memory.used()),
        mib(resident() - before),
        mib(most.into_inner()),
        mib(SIZE * 13 / 10) + 60
    );
}

/// Nanoseconds that this thread has run: what others do on the machine at the same time does not count.
fn processor_time() -> u64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    times
        .split(' ')
        .next()
        .and_then(|run| run.parse().ok())
        .unwrap_or_default()
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or_default()
        * 4096
}

/// Requests that follow Zipf's law: the n-th most popular thing is asked for in proportion to n^-s.
fn zipf(s: f64) -> Vec<usize> {
    let mut sum = 0.0;
    let shares = (1..=POPULATION).map(|rank| {
        sum += (rank as f64).powf(-s);
        sum
    });
    let shares: Vec<f64> = shares.collect();
    let mut rng = Rng::with_seed(1);
    let mut draw = || {
        let drawn = rng.f64() * sum;
        shares.partition_point(|share| *share < drawn).min(POPULATION - 1)
    };
    (0..REQUESTS).map(|_| draw()).collect()
}

fn with_scans(trace: Vec<usize>) -> Vec<usize> {
    let mut once = POPULATION..;
    let scanned = trace.chunks(BETWEEN_SCANS).flat_map(|part| {
        let scan: Vec<usize> = once.by_ref().take(SCAN).collect();
        part.iter().copied().chain(scan)
    });
    scanned.collect()
}

/// What is popular changes altogether a few times.
fn shifting(trace: Vec<usize>) -> Vec<usize> {
    let shift = |(at, index): (usize, usize)| (index + at / (REQUESTS / 5) * (POPULATION / 5)) % POPULATION;
    trace.into_iter().enumerate().map(shift).collect()
}

fn key(index: usize) -> CacheKey {
    let request = RequestHead {
        method: Method::GET,
        scheme: Scheme::Https,
        version: Version::Http11,
        authority: "www.example.com".into(),
        target: format!("/items/{index:08}").into(),
        fields: Fields::new(),
        framing: Framing::None,
        expects_continue: false,
        upgrade: false,
        keep_alive: true,
    };
    CacheKey::new(&request, &KeyOptions::default())
}

fn stored(body: Bytes) -> Stored {
    let mut fields = Fields::new();
    for (name, value) in [
        ("Content-Type", "application/json; charset=utf-8"),
        ("Cache-Control", "public, max-age=3600"),
        ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT"),
        ("ETag", "\"0123456789abcdef\""),
        ("Vary", "Accept-Encoding"),
    ] {
        fields.push(name, value);
    }
    let received = Timestamp::from_secs(1_767_225_600);
    let meta = StoredMeta {
        status: 200,
        received,
        initial_age: Millis::ZERO,
        lifetime: Lifetime {
            seconds: Seconds::new(3600),
            source: LifetimeSource::MaxAge,
        },
        date: received,
        restrictions: Restrictions::default(),
        stale_while_revalidate: None,
        stale_if_error: None,
        validators: Validators::of(&fields, received),
        variant: VariantKey::default(),
        rare: Rare::default(),
    };
    let fields = PackedFields::from(&fields);
    Stored {
        meta,
        fields,
        body: body.into(),
    }
}
