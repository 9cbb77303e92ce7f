//! Clients that show every byte, and real ones.

mod curl;
mod events;
mod http1;
mod http2;
mod websocket;

pub use self::curl::curl;
pub use self::events::{Event, EventSource, Item};
pub use self::http1::{Client, Response, tls};
pub use self::http2::{Http2Client, head_of, request as http2_request, rest_of};
pub use self::websocket::web_socket;
