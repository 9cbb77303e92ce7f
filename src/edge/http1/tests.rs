use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::*;
use crate::http1::Limits;
use crate::message::Scheme;

/// What a client sends, read by read, and what it gets, write by write.
#[derive(Debug, Clone, Default)]
struct Wire(Arc<Mutex<Ends>>);

#[derive(Debug, Default)]
struct Ends {
    reads: VecDeque<&'static str>,
    writes: Vec<String>,
    flushes: usize,
    takes: Takes,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Takes {
    #[default]
    Everything,
    Nothing,
    /// As TLS does while the socket is full.
    Keeps,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.0.lock().unwrap().reads.pop_front() {
            Some(read) => buf.put_slice(read.as_bytes()),
            None => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut ends = self.0.lock().unwrap();
        if ends.takes == Takes::Nothing {
            return Poll::Pending;
        }
        ends.writes.push(String::from_utf8_lossy(buf).into_owned());
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.to_vec()).collect();
        self.poll_write(cx, &all)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ends = self.0.lock().unwrap();
        ends.flushes += 1;
        match ends.takes {
            Takes::Everything => Poll::Ready(Ok(())),
            Takes::Nothing | Takes::Keeps => Poll::Pending,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A client that sends this, and whoever answers its requests with their own targets until nothing more comes.
struct Served {
    wire: Wire,
    client: Http1Client,
    alarm: Alarm,
    _shutdown: watch::Sender<bool>,
}

impl Served {
    fn new(reads: impl IntoIterator<Item = &'static str>) -> Self {
        let wire = Wire::default();
        wire.0.lock().unwrap().reads.extend(reads);
        let (sender, shutdown) = watch::channel(false);
        Self {
            client: Http1Client::new(Socket::Over(Box::new(wire.clone()), -1), shutdown),
            wire,
            alarm: Alarm::new(),
            _shutdown: sender,
        }
    }

    async fn next(&mut self) -> Next {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let times = HeadTimes {
            idle: Duration::from_secs(75),
            head: Duration::from_secs(10),
            since: None,
        };
        let expected = Expected {
            scheme: Scheme::Http,
            limits: &Limits::DEFAULT,
            http2: PriorKnowledge::Refused,
        };
        self.client.poll_next(cx, expected, times, &mut self.alarm)
    }

    async fn answer(&mut self, head: &RequestHead, length: usize) {
        let mut body = head.target.as_bytes().to_vec();
        body.resize(length, b' ');
        self.client.respond(&mut ResponseHead {
            status: 200,
            fields: Fields::new(),
            framing: Framing::Length(length as u64),
            declared_length: None,
        });
        self.client.send(body.into());
        self.client.finish(None);
        poll_fn(|cx| match self.client.may_gather() {
            true => Poll::Ready(Ok(())),
            false => self.client.poll_flush(cx),
        })
        .await
        .unwrap();
    }

    async fn answer_all(&mut self, length: usize) -> Next {
        loop {
            match self.next().await {
                Next::Request(head, _) => self.answer(&head, length).await,
                other => return other,
            }
        }
    }

    /// The targets that were answered, for each write.
    fn writes(&self) -> Vec<Vec<String>> {
        let targets = |write: &String| {
            let words = write.split_ascii_whitespace();
            words.filter(|word| word.starts_with("/")).map(str::to_owned).collect()
        };
        self.wire.0.lock().unwrap().writes.iter().map(targets).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn answers_to_requests_that_came_together_leave_together() {
    let mut served = Served::new([
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
    ]);
    assert!(matches!(served.answer_all(10).await, Next::Closed));
    assert_eq!(served.writes(), [vec!["/1", "/2", "/3"], vec!["/4"]]);
}

#[tokio::test(start_paused = true)]
async fn no_answer_waits_for_the_rest_of_a_request() {
    let mut served = Served::new(["GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT"]);
    assert!(matches!(served.next().await, Next::Request(_, Came::Now)));
    let head = RequestHead {
        target: "/1".into(),
        ..request_head()
    };
    served.answer(&head, 10).await;
    assert!(served.writes().is_empty(), "its end may be there");
    assert!(matches!(served.answer_all(10).await, Next::TimedOut));
    assert_eq!(served.writes(), [vec!["/1"]]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_tls_keeps_is_flushed_until_it_has_left() {
    let mut served = Served::new(["GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT"]);
    let Next::Request(head, _) = served.next().await else {
        panic!("no request")
    };
    served.answer(&head, 10).await;
    served.wire.0.lock().unwrap().takes = Takes::Keeps;
    for flushes in 1..4 {
        let waits = poll_fn(|cx| Poll::Ready(served.poll_next(cx).is_pending())).await;
        assert!(waits);
        assert_eq!(served.wire.0.lock().unwrap().flushes, flushes);
    }
    served.wire.0.lock().unwrap().takes = Takes::Everything;
    assert!(matches!(served.next().await, Next::TimedOut), "the rest of the request");
    assert_eq!(served.wire.0.lock().unwrap().flushes, 4);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_does_not_keep_answers_back() {
    let mut served = Served::new(["GET /1 HTTP/1.1\r\nHost: a\r\n\r\nno request\r\n\r\n"]);
    assert!(matches!(served.answer_all(10).await, Next::Refused(_)));
    poll_fn(|cx| served.client.poll_flush(cx)).await.unwrap();
    assert_eq!(served.writes(), [vec!["/1"]]);
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_of_a_connection_is_not_kept_back() {
    let mut served = Served::new([
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /3 HT",
    ]);
    for _ in 0..2 {
        match served.next().await {
            Next::Request(head, _) => served.answer(&head, 10).await,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(served.client.end(&mut served.alarm).await, After::Close);
    assert_eq!(served.writes(), [vec!["/1", "/2"]]);
}

#[tokio::test(start_paused = true)]
async fn not_more_than_so_much_is_gathered() {
    const REQUEST: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let many: &'static str = Box::leak(REQUEST.repeat(100).into_boxed_str());
    let mut served = Served::new([many]);
    assert!(matches!(served.answer_all(1024).await, Next::Closed));
    let wire = served.wire.0.lock().unwrap();
    let longest = wire.writes.iter().map(String::len).max();
    assert!(longest < Some(GATHERED + 2 * 1024), "{longest:?}");
    assert!(wire.writes.len() < 10, "{}", wire.writes.len());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_given_up() {
    let mut served = Served::new(["GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT"]);
    served.wire.0.lock().unwrap().takes = Takes::Nothing;
    let started = Instant::now();
    assert!(matches!(served.answer_all(10).await, Next::Closed));
    assert!(
        (29..=32).contains(&started.elapsed().as_secs()),
        "{:?}",
        started.elapsed()
    );
    served.client.close(&mut served.alarm).await;
    assert!(
        (29..=32).contains(&started.elapsed().as_secs()),
        "{:?}",
        started.elapsed()
    );
}

fn request_head() -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        version: Version::Http11,
        authority: "a".into(),
        target: "".into(),
        fields: Fields::new(),
        framing: Framing::None,
        expects_continue: false,
        upgrade: false,
        keep_alive: true,
    }
}
