//! Listeners that stand beside the flow of requests: few connections, small heads, and nobody holds a place for ever.
//!
//! Where all places are taken, whoever has been silent for longest makes room for the next one: a connection costs an attacker
//! nothing, so holding all of them must not keep anybody out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tracing::warn;

/// From the last response to the end of the next request's head: scrapers come every 15 s.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// From the connection's begin to the end of its first request's head.
const FIRST_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long whoever has just come, or been answered, keeps its place: a request is on its way for less.
const GRACE: Duration = Duration::from_millis(100);

/// How long open connections may take to finish their response when they are told to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// After a failure to accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener may be asked for.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// What it is called in the log.
    pub name: &'static str,
    /// At once; the next one takes the place of who has been silent for longest.
    pub connections: u32,
    /// Bytes of a request's head. (The least that hyper takes is 8 KiB.)
    pub head_size: usize,
    /// Then a connection is closed, whatever it does: a reader that does not read must not hold its place for ever.
    pub lifetime: Duration,
}

/// Answers on `listener` until `shutdown` ends, and then for as long as open responses need, at most two seconds.
pub async fn serve<Answered>(
    listener: TcpListener,
    bounds: Bounds,
    respond: impl Fn(Request<Incoming>) -> Answered + Clone + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
) where
    Answered: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let places = Arc::new(Places::new(bounds.connections));
    let (closing, _) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let (stream, _) = listener.accept().await?;
            io::Result::Ok((places.take().await?, stream))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((seat, stream)) => {
                let (respond, closing) = (respond.clone(), closing.subscribe());
                tokio::spawn(async move { connection(stream, bounds, &respond, &seat, closing).await });
            }
            Err(error) => {
                warn!(%error, "the {} listener cannot accept a connection", bounds.name);
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    () = &mut shutdown => break,
                }
            }
        }
    }
    drop(listener);
    closing.send_replace(());
    // When every place is free again, every connection has ended; those that have not end with their own timeout.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, places.free.acquire_many(bounds.connections)).await;
}

/// Room for so many connections.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    /// Those that are taken, by number.
    taken: Mutex<BTreeMap<u64, Arc<Sitting>>>,
    next: AtomicU64,
}

/// A place that is taken. It is free again when this is dropped.
#[derive(Debug)]
struct Seat {
    number: u64,
    sitting: Arc<Sitting>,
    places: Arc<Places>,
    _place: OwnedSemaphorePermit,
}

/// What a connection does.
#[derive(Debug)]
struct Sitting {
    doing: Mutex<Doing>,
    /// Somebody else needs the place.
    leave: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// It has asked for nothing since it came.
    Come(Instant),
    /// It has had its answer.
    Answered(Instant),
    Asking,
}

impl Sitting {
    fn silent_since(&self) -> Option<Instant> {
        match *self.doing.lock() {
            Doing::Come(since) | Doing::Answered(since) => Some(since),
            Doing::Asking => None,
        }
    }
}

impl Places {
    fn new(count: u32) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count as usize)),
            taken: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// Waits for a place; where there is none, somebody silent has to leave.
    async fn take(self: &Arc<Self>) -> io::Result<Seat> {
        let mut free = pin!(Arc::clone(&self.free).acquire_owned());
        let place = loop {
            // Looked at anew each time: who is asking now will be silent later.
            let told_to_leave = async {
                tokio::time::sleep_until(self.make_room().unwrap_or_else(|| Instant::now() + GRACE)).await;
            };
            tokio::select! {
                biased;
                // The semaphore is never closed.
                place = &mut free => break place.map_err(io::Error::other)?,
                () = told_to_leave => {}
            }
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let sitting = Arc::new(Sitting {
            doing: Mutex::new(Doing::Come(Instant::now())),
            leave: Notify::new(),
        });
        self.taken.lock().insert(number, Arc::clone(&sitting));
        Ok(Seat {
            number,
            sitting,
            places: Arc::clone(self),
            _place: place,
        })
    }

    /// Tells who has been silent for longest to leave, if it has had its time, and answers when to look again.
    fn make_room(&self) -> Option<Instant> {
        let taken = self.taken.lock();
        let silent = taken
            .values()
            .filter_map(|sitting| Some((sitting.silent_since()?, sitting)));
        let (since, sitting) = silent.min_by_key(|(since, _)| *since)?;
        let now = Instant::now();
        if since + GRACE > now {
            return Some(since + GRACE);
        }
        sitting.leave.notify_one();
        Some(now + GRACE)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.taken.lock().remove(&self.number);
    }
}

async fn connection<Answered>(
    stream: TcpStream,
    bounds: Bounds,
    respond: &impl Fn(Request<Incoming>) -> Answered,
    seat: &Seat,
    mut closing: watch::Receiver<()>,
) where
    Answered: Future<Output = Response<Full<Bytes>>>,
{
    let sitting = &seat.sitting;
    let service = service_fn(move |request| async move {
        *sitting.doing.lock() = Doing::Asking;
        let response = respond(request).await;
        *sitting.doing.lock() = Doing::Answered(Instant::now());
        Ok::<_, Infallible>(response)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(bounds.head_size)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut first_head = pin!(tokio::time::sleep(FIRST_HEAD_TIMEOUT));
    let mut whole_life = pin!(tokio::time::sleep(bounds.lifetime));
    loop {
        // How a connection ends is its client's affair.
        tokio::select! {
            _ = &mut connection => return,
            // What is asked for in the very moment is answered.
            () = sitting.leave.notified() => if sitting.silent_since().is_some() { return },
            () = &mut first_head, if !first_head.is_elapsed() => {
                if matches!(*sitting.doing.lock(), Doing::Come(_)) { return }
            }
            _ = closing.changed() => break,
            () = &mut whole_life => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection).await;
}
