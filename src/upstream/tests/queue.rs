//! Requests that wait for room.

use std::time::Duration;

use super::*;

fn limited(more: &str) -> Arc<Upstream> {
    upstream(&format!(
        "servers: [{{ address: \"10.0.0.1:1\", max_connections: 1 }}], {more}"
    ))
}

/// A request that has come to a server, or why it has not; in a task, so that it can be abandoned.
fn request(upstream: &Arc<Upstream>) -> tokio::task::JoinHandle<Result<OpenExchange, ConnectError>> {
    let upstream = upstream.clone();
    tokio::spawn(async move {
        let entered = upstream.enter(&Selection::default(), &Tried::default()).await;
        entered.map(|open| open.expect("there is a server"))
    })
}

/// Lets others run until so many wait.
async fn until_waiting(upstream: &Arc<Upstream>, count: usize) {
    while upstream.waiting() != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_to_come_is_the_first_served() {
    let upstream = limited("queue: 10");
    let mut open = request(&upstream).await.unwrap().unwrap();
    let mut waiting = Vec::new();
    for count in 1..=5 {
        waiting.push(request(&upstream));
        until_waiting(&upstream, count).await;
    }
    for (index, next) in waiting.into_iter().enumerate() {
        assert!(!next.is_finished());
        drop(open);
        open = next.await.unwrap().unwrap();
        assert_eq!(upstream.waiting(), 4 - index);
        assert_eq!(server(&upstream, 0).load.open(), 1, "never more than one at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_and_a_long_wait_are_refused() {
    let upstream = limited("queue: 1, queue_timeout: 2s");
    let open = request(&upstream).await.unwrap().unwrap();
    let waiting = request(&upstream);
    until_waiting(&upstream, 1).await;
    assert!(matches!(
        request(&upstream).await.unwrap(),
        Err(ConnectError::QueueFull)
    ));
    let before = Instant::now();
    assert!(matches!(waiting.await.unwrap(), Err(ConnectError::QueueTimeout(_))));
    assert_eq!(before.elapsed().as_secs(), 2);
    assert_eq!(upstream.waiting(), 0);
    assert_eq!(upstream.metrics.queue_refused.value(), 2);
    drop(open);
    assert!(request(&upstream).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_gives_the_place_up() {
    let upstream = limited("queue: 2");
    let open = request(&upstream).await.unwrap().unwrap();
    let (first, second) = (request(&upstream), request(&upstream));
    until_waiting(&upstream, 2).await;
    first.abort();
    until_waiting(&upstream, 1).await;
    drop(open);
    assert!(second.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_place_granted_to_somebody_who_has_left_goes_to_the_next() {
    let upstream = limited("queue: 2");
    let open = request(&upstream).await.unwrap().unwrap();
    let (first, second) = (request(&upstream), request(&upstream));
    until_waiting(&upstream, 2).await;
    // The place is granted before the task that is to be ended can run again.
    drop(open);
    first.abort();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(upstream.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_serves_those_who_wait() {
    let upstream = upstream("servers: [{ address: \"10.0.0.1:1\", max_connections: 1 }, \"10.0.0.2:1\"]");
    assert!(upstream.drain("10.0.0.2:1"));
    let _open = request(&upstream).await.unwrap().unwrap();
    let waiting = request(&upstream);
    until_waiting(&upstream, 1).await;
    assert!(upstream.enable("10.0.0.2:1"));
    let open = waiting.await.unwrap().unwrap();
    assert_eq!(*open.server().label, *"10.0.0.2:1");
}

#[tokio::test]
async fn many_at_once_lose_no_place() {
    let upstream = upstream(
        "servers: [{ address: \"10.0.0.1:1\", max_connections: 2 }, { address: \"10.0.0.2:1\", max_connections: 1 }], queue: 1000",
    );
    let requests: Vec<_> = (0..500)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move {
                let entered = upstream.enter(&Selection::default(), &Tried::default()).await;
                let open = entered.unwrap().unwrap();
                assert!(open.server().load.open() <= 2);
                tokio::task::yield_now().await;
            })
        })
        .collect();
    for request in requests {
        tokio::time::timeout(Duration::from_secs(20), request)
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(
        (server(&upstream, 0).load.open(), server(&upstream, 1).load.open()),
        (0, 0)
    );
}
