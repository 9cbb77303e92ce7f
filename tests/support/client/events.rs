//! An event stream's reader, as browsers have it (HTML Living Standard §9.2.6).

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::http1::{Client, Response};

/// An open event stream.
pub struct EventSource {
    client: Client,
    pub head: Response,
    line: Vec<u8>,
    event: Event,
    ready: VecDeque<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Event(Event),
    /// A line that begins with a colon, without it.
    Comment(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// `message` when the stream names none.
    pub name: String,
    pub data: String,
    pub id: String,
}

impl EventSource {
    pub async fn open(address: SocketAddr, target: &str) -> Self {
        let mut client = Client::connect(address).await;
        client
            .send_request("GET", target, &[("Accept", "text/event-stream")], b"")
            .await;
        Self::after_request(client).await
    }

    /// For a request that the test has sent itself. The answer must be a chunked event stream.
    pub async fn after_request(mut client: Client) -> Self {
        let head = client.response_head().await;
        assert_eq!(head.status, 200, "{}", head.raw_head);
        assert_eq!(head.field("transfer-encoding"), Some("chunked"), "{}", head.raw_head);
        let kind = head.field("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/event-stream"), "{}", head.raw_head);
        Self {
            client,
            head,
            line: Vec::new(),
            event: Event::default(),
            ready: VecDeque::new(),
        }
    }

    /// The next event; comments before it are passed over.
    pub async fn next_event(&mut self) -> Item {
        loop {
            match self.next().await {
                Some(Item::Comment(_)) => {}
                Some(event) => return event,
                None => panic!("the stream ended before the event"),
            }
        }
    }

    /// The data of the next event.
    pub async fn data(&mut self) -> String {
        match self.next_event().await {
            Item::Event(event) => event.data,
            Item::Comment(_) => unreachable!(),
        }
    }

    /// `None` at the end in order; a cut fails the test.
    pub async fn next(&mut self) -> Option<Item> {
        self.try_next().await.expect("the stream was cut")
    }

    /// As [`EventSource::next`], where the stream may be cut.
    pub async fn try_next(&mut self) -> std::io::Result<Option<Item>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            match self.client.try_chunk().await? {
                None => return Ok(None),
                Some(chunk) => self.take(&chunk),
            }
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        for byte in chunk {
            match byte {
                b'\r' => {}
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.take_line(std::str::from_utf8(&line).unwrap());
                }
                other => self.line.push(*other),
            }
        }
    }

    fn take_line(&mut self, line: &str) {
        let (field, value) = match line.split_once(':') {
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line, ""),
        };
        match field {
            _ if line.is_empty() => {
                let mut event = std::mem::take(&mut self.event);
                // An event without data is not dispatched.
                if event.data.pop().is_some() {
                    if event.name.is_empty() {
                        event.name = "message".to_owned();
                    }
                    self.ready.push_back(Item::Event(event));
                }
            }
            "" => self.ready.push_back(Item::Comment(value.to_owned())),
            "data" => {
                self.event.data.push_str(value);
                self.event.data.push('\n');
            }
            "event" => self.event.name = value.to_owned(),
            "id" => self.event.id = value.to_owned(),
            _ => {}
        }
    }
}
