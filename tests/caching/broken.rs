//! Bodies that are not whole are nobody's.

use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply, Request, Step};

/// How often each kind of break is tried, at positions all over the response.
const TRIES: usize = 100;

/// How a response breaks.
#[derive(Debug, Clone, Copy)]
enum Break {
    SizedClosed,
    SizedReset,
    ChunksClosed,
    ChunksReset,
    /// A chunk whose size is no number.
    ChunkSize,
    /// Data that go on behind their chunk's size.
    ChunkEnd,
}

const BREAKS: [Break; 6] = [
    Break::SizedClosed,
    Break::SizedReset,
    Break::ChunksClosed,
    Break::ChunksReset,
    Break::ChunkSize,
    Break::ChunkEnd,
];

const HEAD: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nETag: \"a\"\r\n";

/// `/break/try`: the whole is `2 * TRIES` bytes of body, and it breaks after so many bytes of it.
fn broken(request: &Request) -> Reply {
    let mut parts = request.target.trim_start_matches('/').split('/');
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok()).unwrap();
    let (kind, at) = (BREAKS[number()], number());
    let body: String = std::iter::repeat_n('a', 2 * TRIES).collect();
    let sized = format!("{HEAD}Content-Length: {}\r\n\r\n{}", body.len(), &body[..at]);
    let chunk = |size: &str| format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{size}\r\n{}", &body[..at]);
    let (text, end) = match kind {
        Break::SizedClosed => (sized, Step::Close),
        Break::SizedReset => (sized, Step::Reset),
        Break::ChunksClosed => (chunk(&format!("{:x}", body.len())), Step::Close),
        Break::ChunksReset => (chunk(&format!("{:x}", body.len())), Step::Reset),
        Break::ChunkSize => (format!("{}\r\nxyz\r\n", chunk(&format!("{at:x}"))), Step::Close),
        Break::ChunkEnd => (format!("{}aa\r\n0\r\n\r\n", chunk(&format!("{at:x}"))), Step::Close),
    };
    Reply::script([Step::Write(text.into()), end])
}

#[tokio::test]
async fn a_broken_transfer_is_seen_as_one_and_not_stored() {
    let origin = Origin::builder().answering(broken).start().await;
    let proxy = Inside::before(&origin, "").await;
    for (index, kind) in BREAKS.into_iter().enumerate() {
        for at in 1..=TRIES {
            let target = format!("/{index}/{at}");
            let mut client = proxy.client().await;
            client.send_request("GET", &target, &[], b"").await;
            let response = client.try_response().await;
            // Where the break came with the head there may be an error instead.
            assert!(
                response.as_ref().map_or(true, |response| response.status == 502),
                "{kind:?} after {at} bytes looks whole: {response:?}"
            );
        }
    }
    proxy.stored(0).await;
    assert_eq!(origin.request_count(), BREAKS.len() * TRIES);
}

#[tokio::test]
async fn who_reads_along_sees_the_break_too() {
    let gate = crate::support::origin::Gate::new();
    let script = [
        Step::Write(format!("{HEAD}Content-Length: 10\r\n\r\nhalf").into()),
        Step::Hold(gate.clone()),
        Step::Close,
    ];
    let origin = Origin::builder()
        .on_each("/a", [Reply::script(script), Reply::fresh(60, "whole")])
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.client().await;
        client.send_request("GET", "/a", &[], b"").await;
        client.response_head().await;
        clients.push(client);
    }
    gate.release();
    for client in &mut clients {
        assert_eq!(client.read_to_end().await, b"half");
    }
    assert_eq!((proxy.get("/a").await.text(), origin.request_count()), ("whole", 2));
}
