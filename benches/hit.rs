//! What the parts of a hit cost: key, lookup, decision, head.

use std::hint::black_box;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, criterion_group, criterion_main};
use forebay::cache::{Memory, PackedFields, Stored, StoredLines};
use forebay::config::Eviction;
use forebay::http1::{Limits, encode, request};
use forebay::key::{CacheKey, KeyOptions};
use forebay::message::{Fields, Framing, Lines, RequestHead, ResponseHead, Scheme};
use forebay::respond::cache_status::{CacheStatus, Outcome};
use forebay::rfc9111::date::{Millis, Seconds, Timestamp};
use forebay::rfc9111::freshness::{Lifetime, LifetimeSource};
use forebay::rfc9111::reuse::{ReusePolicy, reuse};
use forebay::rfc9111::stored::{Rare, Restrictions, StoredMeta};
use forebay::rfc9111::validation::{Validators, evaluate, keep_for_not_modified};
use forebay::rfc9111::vary::{VariantKey, select};

const REQUEST: &[u8] = b"GET /articles/2025/07/forebay-in-front?lang=de HTTP/1.1\r\n\
Host: www.example.org\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: de,en-US;q=0.7,en;q=0.3\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
If-None-Match: \"6863a5d0-400\"\r\n\r\n";

const RECEIVED: u64 = 1_767_225_600;

fn stored() -> Stored {
    let mut fields = Fields::new();
    for (name, value) in [
        ("Server", "nginx/1.22.1"),
        ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("Content-Type", "application/json; charset=utf-8"),
        ("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT"),
        ("ETag", "\"6863a5d0-400\""),
        ("Cache-Control", "public, max-age=3600"),
    ] {
        fields.push(name, value);
    }
    let received = Timestamp::from_secs(RECEIVED);
    Stored {
        meta: StoredMeta {
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
        },
        fields: PackedFields::from(&fields),
        body: Bytes::from_static(&[b'x'; 1024]).into(),
    }
}

fn asked() -> Option<RequestHead> {
    let (head, _) = request::parse(REQUEST, &Limits::DEFAULT, Scheme::Http).ok()??;
    Some(head)
}

fn write(out: &mut BytesMut, stored: &Stored, change: impl FnOnce(&mut StoredLines<'_>)) {
    out.clear();
    let mut fields = StoredLines::new(&stored.fields);
    change(&mut fields);
    let status = CacheStatus {
        outcome: Outcome::Hit,
        ttl: Some(3590),
        detail: Some("l1"),
    };
    fields.push_written("Age", |out| encode::decimal(out, 10));
    fields.push_written("Cache-Status", |out| status.write(out));
    fields.push("X-Request-Id", "0e1114b163ae9d208ec271a29f808309");
    let head = ResponseHead {
        status: stored.meta.status,
        fields,
        framing: Framing::Length(1024),
        declared_length: Some(1024),
    };
    encode::response_head(out, &head, &http::Method::GET, encode::Connection::Persistent);
}

fn parts(criterion: &mut Criterion) {
    let (options, policy) = (KeyOptions::default(), ReusePolicy::default());
    let Some(request) = asked() else { return };
    let mut group = criterion.benchmark_group("hit");
    group.bench_function("make the key", |bench| {
        bench.iter(|| CacheKey::new(black_box(&request), &options));
    });

    let memory = Memory::new(1 << 30, Eviction::S3Fifo);
    let key = CacheKey::new(&request, &options);
    memory.store("bench", &key, Arc::new(stored()));
    group.bench_function("look it up", |bench| {
        bench.iter(|| memory.get(black_box(&key)));
    });

    let (stored, now) = (stored(), Timestamp::from_secs(RECEIVED + 10));
    let variants = [&stored];
    group.bench_function("decide", |bench| {
        bench.iter(|| {
            let variants = variants.iter().map(|stored| (*stored, &stored.meta));
            let chosen = select(variants, &black_box(&request).fields)?;
            Some((
                reuse(&request, &chosen.meta, now, &policy),
                evaluate(&request, &chosen.meta),
            ))
        });
    });

    let mut out = BytesMut::with_capacity(4096);
    group.bench_function("write the head", |bench| {
        bench.iter(|| write(&mut out, black_box(&stored), |_| {}));
    });
    group.bench_function("write the head of a 304", |bench| {
        bench.iter(|| write(&mut out, black_box(&stored), |fields| keep_for_not_modified(fields)));
    });
    group.bench_function("write the head, a field of it replaced", |bench| {
        bench.iter(|| write(&mut out, black_box(&stored), |fields| fields.set("Server", "app")));
    });
    group.finish();
}

criterion_group!(benches, parts);
criterion_main!(benches);
