//! One request to the admin listener on a connection of its own.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::http1::{Limits, response};
use crate::message::{Framing, split_port};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two reads or writes. A purge of a large cache by pattern takes its time.
const IO_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of an answer: more than the listener ever has to say.
const LARGEST_ANSWER: u64 = 64 * 1024 * 1024;

/// Where the listener is.
#[derive(Debug)]
pub struct Client {
    authority: String,
    token: Option<String>,
}

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("the admin listener cannot be reached: {0}")]
    Unavailable(#[from] io::Error),
    #[error("what answers is no admin listener")]
    Unintelligible,
    #[error("{detail} ({status} {reason})")]
    Refused {
        status: u16,
        reason: String,
        detail: String,
    },
}

impl Client {
    /// # Errors
    /// The URL or the token cannot be one.
    pub fn new(url: &str, token: Option<String>) -> Result<Self, Failure> {
        let wrong = || Failure::Usage(format!("--admin {url:?} must be like http://127.0.0.1:9191"));
        let authority = url.strip_prefix("http://").ok_or_else(wrong)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']' | '_');
        if authority.is_empty() || !authority.chars().all(is_plain) {
            return Err(wrong());
        }
        if token
            .as_ref()
            .is_some_and(|token| token.chars().any(|c| !c.is_ascii_graphic()))
        {
            return Err(Failure::Usage(
                "the token holds a space or a control character".to_owned(),
            ));
        }
        let authority = match split_port(authority) {
            (_, Some(_)) => authority.to_owned(),
            (host, None) => format!("{host}:80"),
        };
        Ok(Self { authority, token })
    }

    /// # Errors
    /// There is no answer, or the listener refuses.
    pub fn request(&self, method: &Method, target: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let mut stream = connect(&self.authority)?;
        let authority = &self.authority;
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n");
        if let Some(token) = &self.token {
            request.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        if !body.is_empty() {
            request.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ));
        }
        request.push_str("\r\n");
        request.push_str(&body);
        // A listener that refuses without reading may close first; its answer can be read all the same.
        let sent = stream.write_all(request.as_bytes());
        let mut received = Vec::new();
        let read = stream.take(LARGEST_ANSWER).read_to_end(&mut received);
        if received.is_empty() {
            sent?;
            read?;
        }
        answer(&received, method)
    }
}

fn connect(authority: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(IO_TIMEOUT))?;
                stream.set_write_timeout(Some(IO_TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What is at an `http://` URL, of at most so many bytes.
///
/// # Errors
/// It is not there, or larger.
pub fn fetch(url: &str, limit: u64) -> Result<Vec<u8>, Failure> {
    let wrong = |what: &str| Failure::Usage(format!("{url:?} {what}"));
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(wrong(
            "cannot be fetched: only http:// can; fetch it yourself and give the file",
        ));
    };
    if url.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(wrong("holds a space or a character that a URL cannot have"));
    }
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    let with_port = match split_port(authority) {
        (_, Some(_)) => authority.to_owned(),
        (host, None) => format!("{host}:80"),
    };
    let mut stream = connect(&with_port)?;
    // To HTTP/1.0 nothing is answered in chunks (RFC 9112 §6.1).
    write!(
        stream,
        "GET {target} HTTP/1.0\r\nHost: {authority}\r\nUser-Agent: forebay\r\n\r\n"
    )?;
    let mut received = Vec::new();
    stream
        .take(limit + Limits::DEFAULT.head as u64)
        .read_to_end(&mut received)?;
    let Ok(Some(head)) = response::parse(&received, &Limits::DEFAULT, &Method::GET) else {
        return Err(wrong("is answered with something that is not HTTP"));
    };
    if head.head.status != 200 {
        return Err(wrong(&format!("is answered with {}", head.head.status)));
    }
    let body = received.split_off(head.length);
    match head.head.framing {
        Framing::Length(length) if length != body.len() as u64 => Err(wrong("breaks off, or is too large")),
        Framing::Length(_) | Framing::Close if body.len() as u64 <= limit => Ok(body),
        _ => Err(wrong("is too large, or not a body that is understood")),
    }
}

fn answer(received: &[u8], method: &Method) -> Result<Value, Failure> {
    let Ok(Some(head)) = response::parse(received, &Limits::DEFAULT, method) else {
        return Err(Failure::Unintelligible);
    };
    let body = received.get(head.length..).unwrap_or_default();
    let parsed: Value = serde_json::from_slice(body).map_err(|_| Failure::Unintelligible)?;
    let status = head.head.status;
    if (200..300).contains(&status) {
        return Ok(parsed);
    }
    let said = |name: &str| parsed[name].as_str().unwrap_or_default().to_owned();
    Err(Failure::Refused {
        status,
        reason: said("reason"),
        detail: said("detail"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_listener_can_be() {
        for (url, authority) in [
            ("http://127.0.0.1:9191", Some("127.0.0.1:9191")),
            ("http://[::1]:9191/", Some("[::1]:9191")),
            ("http://forebay.internal", Some("forebay.internal:80")),
            ("https://127.0.0.1:9191", None),
            ("127.0.0.1:9191", None),
            ("http://a/b", None),
            ("http://a\r\nX: y", None),
            ("http://", None),
        ] {
            assert_eq!(
                Client::new(url, None).ok().map(|client| client.authority).as_deref(),
                authority,
                "{url}"
            );
        }
        assert!(Client::new("http://a", Some("a\r\nb".to_owned())).is_err());
    }

    #[test]
    fn answers_of_others_are_not_taken_for_one() {
        assert!(matches!(
            answer(b"SSH-2.0\r\n", &Method::GET),
            Err(Failure::Unintelligible)
        ));
        assert!(matches!(
            answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", &Method::GET),
            Err(Failure::Unintelligible)
        ));
        assert!(matches!(
            answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", &Method::GET),
            Err(Failure::Refused { status: 404, .. })
        ));
    }
}
