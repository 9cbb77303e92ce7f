//! What parsing and writing heads costs.

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::http1::{Limits, body, encode, request, response};
use forebay::message::{Framing, Scheme};
use http::Method;
use std::hint::black_box;

/// As a browser sends it: 12 fields, about 600 bytes.
const REQUEST: &[u8] = b"GET /articles/2025/07/forebay-in-front?lang=de HTTP/1.1\r\n\
Host: www.example.org\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: de,en-US;q=0.7,en;q=0.3\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://www.example.org/articles/2025/07/\r\n\
Connection: keep-alive\r\n\
Cookie: theme=dark; consent=1%2C2%2C3; _ga=GA1.2.1234567890.1234567890\r\n\
Sec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Site: same-origin\r\n\
Cache-Control: max-age=0\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.22.1\r\n\
Date: Tue, 01 Jul 2025 10:00:00 GMT\r\n\
Content-Type: application/json; charset=utf-8\r\n\
Content-Length: 1024\r\n\
Last-Modified: Tue, 01 Jul 2025 09:00:00 GMT\r\n\
Connection: keep-alive\r\n\
ETag: \"6863a5d0-400\"\r\n\
Cache-Control: public, max-age=60\r\n\
Vary: Accept-Encoding\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http1");
    let limits = Limits::DEFAULT;

    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("parse request", |bench| {
        bench.iter(|| request::parse(black_box(REQUEST), &limits, Scheme::Http));
    });
    let Ok(Some((head, _))) = request::parse(REQUEST, &limits, Scheme::Http) else {
        return;
    };
    group.bench_function("look up six fields", |bench| {
        bench.iter(|| {
            let fields = black_box(&head.fields);
            let names = [
                "authorization",
                "cookie",
                "range",
                "if-none-match",
                "cache-control",
                "pragma",
            ];
            names.iter().filter(|name| fields.contains(name)).count()
        });
    });
    let mut out = BytesMut::with_capacity(4096);
    group.bench_function("write request", |bench| {
        bench.iter(|| {
            out.clear();
            let head = black_box(&head);
            let connection = encode::Connection::Persistent;
            let (method, target, authority) = (&head.method, &head.target, &head.authority);
            encode::request_head(
                &mut out,
                method,
                target,
                authority,
                &head.fields,
                head.framing,
                connection,
            );
            out.len()
        });
    });

    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("parse response", |bench| {
        bench.iter(|| response::parse(black_box(RESPONSE), &limits, &Method::GET));
    });
    let Ok(Some(received)) = response::parse(RESPONSE, &limits, &Method::GET) else {
        return;
    };
    group.bench_function("write response", |bench| {
        bench.iter(|| {
            out.clear();
            let connection = encode::Connection::Persistent;
            encode::response_head(&mut out, black_box(&received.head), &Method::GET, connection);
            out.len()
        });
    });
    group.finish();
}

/// Bytes as an event stream has them: chunks of 100 bytes, and as a download has them: chunks of 16 KiB.
fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http1 chunks");
    for size in [100, 16 * 1024] {
        let mut body = Vec::new();
        for _ in 0..64 * 1024 / size {
            encode::chunk_head(&mut body, size as u64);
            body.resize(body.len() + size, b'x');
            body.extend_from_slice(encode::CHUNK_END);
        }
        body.extend_from_slice(encode::LAST_CHUNK);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("decode 64 KiB by {size}"), |bench| {
            bench.iter_batched(
                || BytesMut::from(&body[..]),
                |mut buf| {
                    let mut decoder = body::Decoder::new(Framing::Chunked);
                    while let Ok(body::Event::Data(data)) = decoder.decode(&mut buf) {
                        black_box(data);
                    }
                    (decoder.is_done(), buf)
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, heads, chunks);
criterion_main!(benches);
