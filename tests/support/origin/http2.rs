//! The origin's HTTP/2, with prior knowledge or behind ALPN.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tokio::task::JoinSet;

use super::reply::{Body, RequestBody};
use super::{Io, Reply, Request, RequestState, Shared};

pub(super) async fn serve(stream: Box<dyn Io>, shared: Arc<Shared>, id: usize) {
    if let Ok(mut connection) = h2::server::handshake(stream).await {
        let mut exchanges = JoinSet::new();
        while let Some(Ok((request, respond))) = connection.accept().await {
            while exchanges.try_join_next().is_some() {}
            let exchange = exchange(request, respond, Arc::clone(&shared), id);
            exchanges.spawn(super::watch_panics(Arc::clone(&shared), exchange));
        }
    }
    shared.log.change(|log| log.connections[id].closed = true);
}

async fn exchange(request: http::Request<RecvStream>, respond: SendResponse<Bytes>, shared: Arc<Shared>, id: usize) {
    let (head, body) = request.into_parts();
    let target = head
        .uri
        .path_and_query()
        .map_or("*", |target| target.as_str())
        .to_owned();
    let authority = head
        .uri
        .authority()
        .map(|authority| ("host".to_owned(), authority.to_string()));
    let request = Request {
        connection: id,
        method: head.method.to_string(),
        target,
        version: "HTTP/2".to_owned(),
        fields: authority.into_iter().chain(pairs(&head.headers)).collect(),
        ..Request::default()
    };
    let reply = shared.reply(&request);
    let index = shared.log.change(|log| {
        log.requests.push(request);
        log.requests.len() - 1
    });
    // An error here is the client's leaving, or a reset that the reply asked for.
    let _ = match &reply.request_body {
        RequestBody::First => {
            read(body, &shared, index, None).await;
            answer(reply, respond).await
        }
        RequestBody::Meanwhile => {
            let (_, answered) = tokio::join!(read(body, &shared, index, None), answer(reply, respond));
            answered
        }
        RequestBody::Held(gate) => {
            read(body, &shared, index, Some(gate.clone())).await;
            answer(reply, respond).await
        }
    };
}

async fn read(mut body: RecvStream, shared: &Shared, index: usize, gate: Option<super::Gate>) {
    if let Some(gate) = gate {
        gate.pass().await;
    }
    let mut state = RequestState::Complete;
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => {
                shared.log.change(|log| log.requests[index].keep_body(&data));
                let _ = body.flow_control().release_capacity(data.len());
            }
            Err(_) => {
                state = RequestState::Cut;
                break;
            }
        }
    }
    let trailers = match state {
        RequestState::Complete => body.trailers().await.ok().flatten().unwrap_or_default(),
        RequestState::Cut | RequestState::Reading => HeaderMap::new(),
    };
    shared.log.change(|log| {
        let request = &mut log.requests[index];
        request.trailers = pairs(&trailers).collect();
        request.state = state;
    });
}

async fn answer(reply: Reply, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    for (status, fields) in &reply.interim {
        let mut interim = Response::builder().status(*status).body(()).unwrap();
        *interim.headers_mut() = map(fields);
        respond.send_informational(interim)?;
    }
    if let Some(gate) = &reply.before {
        // A client that goes while the reply is held must be seen to go.
        tokio::select! {
            () = gate.pass() => {}
            _ = std::future::poll_fn(|context| respond.poll_reset(context)) => return Ok(()),
        }
    }
    let mut head = Response::builder().status(reply.status).body(()).unwrap();
    *head.headers_mut() = map(&reply.fields);
    let trailers = map(&reply.trailers);
    match reply.body {
        Body::Sized { bytes, length } => {
            head.headers_mut().insert("content-length", length.into());
            let mut stream = respond.send_response(head, false)?;
            send(&mut stream, bytes).await?;
            finish(stream, trailers)
        }
        Body::Zeros(length) => {
            head.headers_mut().insert("content-length", length.into());
            let mut stream = respond.send_response(head, false)?;
            let zeros = Bytes::from_static(&[0; 64 * 1024]);
            let mut left = length;
            while left > 0 {
                let take = left.min(zeros.len() as u64);
                send(&mut stream, zeros.slice(..take as usize)).await?;
                left -= take;
            }
            finish(stream, trailers)
        }
        Body::Chunked(chunks) => {
            let mut stream = respond.send_response(head, false)?;
            for chunk in chunks {
                send(&mut stream, chunk).await?;
            }
            finish(stream, trailers)
        }
        Body::Stream(source) => {
            let mut chunks = source.open();
            let mut stream = respond.send_response(head, false)?;
            loop {
                let chunk = tokio::select! {
                    chunk = chunks.recv() => chunk,
                    _ = std::future::poll_fn(|context| stream.poll_reset(context)) => return Ok(()),
                };
                match chunk {
                    Some(chunk) => send(&mut stream, chunk).await?,
                    None => return finish(stream, trailers),
                }
            }
        }
        // What cannot be said in HTTP/2 resets the stream, which is what a test that says it there wants to see.
        Body::UntilClose(_) | Body::Raw(_) | Body::WebSocketEcho => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
    }
}

async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(room) = std::future::poll_fn(|context| stream.poll_capacity(context)).await else {
            return Ok(());
        };
        let room = room?.min(bytes.len());
        stream.send_data(bytes.split_to(room), false)?;
    }
    Ok(())
}

fn finish(mut stream: SendStream<Bytes>, trailers: HeaderMap) -> Result<(), h2::Error> {
    match trailers.is_empty() {
        true => stream.send_data(Bytes::new(), true),
        false => stream.send_trailers(trailers),
    }
}

fn pairs(map: &HeaderMap) -> impl Iterator<Item = (String, String)> {
    map.iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
}

fn map(fields: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            HeaderName::try_from(name.as_str()).unwrap(),
            HeaderValue::try_from(value.as_str()).unwrap(),
        );
    }
    map
}
