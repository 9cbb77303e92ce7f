use std::future::poll_fn;

use super::*;
use crate::metrics::Metrics;

fn gate(places: usize, queue: usize) -> Arc<Gate> {
    Gate::new(places, queue, Duration::from_secs(5), None, Metrics::new().gate("g"))
}

async fn is_pending(entering: &mut Entering) -> bool {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *entering).poll(cx).is_pending())).await
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

#[tokio::test(start_paused = true)]
async fn who_came_first_gets_in_first_and_the_queue_has_an_end() {
    let gate = gate(1, 2);
    let inside = gate.enter(soon()).await.unwrap();
    let mut first = gate.enter(soon());
    let mut second = gate.enter(soon());
    assert!(is_pending(&mut first).await && is_pending(&mut second).await);
    assert_eq!(gate.enter(soon()).await.unwrap_err().why, GateReason::QueueFull);
    drop(inside);
    assert!(is_pending(&mut second).await);
    let inside = first.await.unwrap();
    drop(inside);
    drop(second.await.unwrap());
    drop(gate.try_enter().unwrap());
}

#[tokio::test(start_paused = true)]
async fn in_an_overload_the_newest_gets_in_first() {
    let gate = gate(1, 10);
    let inside = gate.enter(soon()).await.unwrap();
    let mut oldest = gate.enter(soon());
    assert!(is_pending(&mut oldest).await);
    tokio::time::advance(Duration::from_secs(1)).await;
    let newest = gate.enter(soon());
    drop(inside);
    assert!(is_pending(&mut oldest).await);
    drop(newest.await.unwrap());
    oldest.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_or_leaves_gives_up_the_place() {
    let gate = gate(1, 1);
    let inside = gate.enter(soon()).await.unwrap();
    let late = gate.enter(soon());
    assert_eq!(late.await.unwrap_err().why, GateReason::Timeout);
    let mut gone = gate.enter(soon());
    assert!(is_pending(&mut gone).await);
    drop(gone);
    let mut next = gate.enter(soon());
    assert!(is_pending(&mut next).await, "there is room in the queue again");
    drop(inside);
    drop(next.await.unwrap());
    // A place that was given to somebody who has just left is not lost.
    let inside = gate.enter(soon()).await.unwrap();
    let mut leaving = gate.enter(soon());
    assert!(is_pending(&mut leaving).await);
    drop(inside);
    drop(leaving);
    assert!(gate.try_enter().is_ok());
}
