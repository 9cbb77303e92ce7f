//! What was typed, as the bytes that would have come in.

use std::fmt;
use std::net::IpAddr;

use http::Method;

use crate::cli::Explain;
use crate::http1::{Limits, response};
use crate::message::{Framing, ResponseHead, Scheme};

/// The question: a request, and perhaps the upstream's answer to it.
#[derive(Debug)]
pub struct Asked {
    pub method: String,
    pub url: Url,
    pub from: IpAddr,
    /// Lines, `Name: value`.
    fields: Vec<String>,
    pub response: Option<AskedResponse>,
}

#[derive(Debug)]
pub struct Url {
    pub scheme: Scheme,
    /// Host and port.
    pub authority: String,
    /// Path and query.
    target: String,
}

/// The upstream's answer, as its bytes.
#[derive(Debug)]
pub struct AskedResponse {
    pub status_line: String,
    pub fields: Vec<String>,
}

/// What cannot be a part of any request or response, so that it is the command line that is wrong. What could come in and would be
/// refused is no error here: it is explained.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("the method {0:?} must be one word, like GET")]
    Method(String),
    #[error("the URL {0:?} must be http://HOST/PATH or https://HOST/PATH")]
    Url(String),
    #[error("the URL {0:?} holds a space or a control character: write it as %20 and the like")]
    UrlCharacter(String),
    #[error("the field {0:?} must be \"Name: value\"")]
    Field(String),
    #[error("the field {0:?} holds a line break or NUL")]
    FieldCharacter(String),
    #[error("the status {0:?} must be a status line, like \"HTTP/1.1 200 OK\", or a number")]
    Status(String),
    #[error("the status {0:?} is that of an interim response, which is passed on: give the final one")]
    Interim(String),
    #[error("--response-header needs --response, like --response 200")]
    NoStatus,
}

impl Asked {
    /// # Errors
    /// See [`Wrong`].
    pub fn new(options: &Explain) -> Result<Self, Wrong> {
        let method = options.method.clone();
        if method.is_empty() || method.contains(is_separator) {
            return Err(Wrong::Method(method));
        }
        for field in options.header.iter().chain(&options.response_header) {
            check_field(field)?;
        }
        let response = match &options.response {
            Some(status) => Some(AskedResponse {
                status_line: status_line(status)?,
                fields: options.response_header.clone(),
            }),
            None if options.response_header.is_empty() => None,
            None => return Err(Wrong::NoStatus),
        };
        Ok(Self {
            method,
            url: Url::new(&options.url)?,
            from: options.from,
            fields: options.header.clone(),
            response,
        })
    }

    /// A GET.
    ///
    /// # Errors
    /// See [`Wrong`].
    pub fn get(url: &str, fields: Vec<String>, from: IpAddr) -> Result<Self, Wrong> {
        for field in &fields {
            check_field(field)?;
        }
        Ok(Self {
            method: Method::GET.to_string(),
            url: Url::new(url)?,
            from,
            fields,
            response: None,
        })
    }

    /// The head as an HTTP/1.1 client sends it. A `Host` among the fields takes the place of the URL's.
    pub fn request_text(&self) -> Vec<u8> {
        let mut lines = vec![format!("{} {} HTTP/1.1", self.method, self.url.target)];
        if !self.fields.iter().any(|field| is_named(field, "host")) {
            lines.push(format!("Host: {}", self.url.authority));
        }
        lines.extend(self.fields.iter().cloned());
        head(&lines)
    }
}

impl AskedResponse {
    /// The head as it is understood, and whether the length of its body had to be guessed.
    ///
    /// # Errors
    /// What an upstream that sent this would be told off for.
    pub fn parse(&self, method: &Method) -> Result<(ResponseHead, Length), response::ResponseError> {
        let mut lines = vec![self.status_line.clone()];
        lines.extend(self.fields.iter().cloned());
        let received = response::parse(&head(&lines), &Limits::DEFAULT, method)?;
        let mut head = received.ok_or(response::ResponseError::StatusLine)?.head;
        // Nobody types the length of a body that there is not. Who means the end of the connection says so.
        let says_close = self.status_line.starts_with("HTTP/1.0") || head.fields.has_token("connection", "close");
        match head.framing {
            Framing::Close if !says_close => {
                head.framing = Framing::Chunked;
                Ok((head, Length::Assumed))
            }
            _ => Ok((head, Length::Given)),
        }
    }
}

/// Whether the end of a response's body is known from what was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    Given,
    /// Taken for known, although no field says so.
    Assumed,
}

impl Url {
    fn new(text: &str) -> Result<Self, Wrong> {
        if text.contains("://") && text.contains(is_separator) {
            return Err(Wrong::UrlCharacter(text.to_owned()));
        }
        let wrong = || Wrong::Url(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(wrong()),
        };
        // Clients keep the fragment to themselves (RFC 9110 §4.2.5).
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err(wrong());
        }
        let target = match target.starts_with('/') {
            true => target.to_owned(),
            // RFC 9112 §3.2.1.
            false => format!("/{target}"),
        };
        Ok(Self {
            scheme,
            authority: authority.to_owned(),
            target,
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.target)
    }
}

fn is_separator(char: char) -> bool {
    char == ' ' || char.is_control()
}

fn check_field(field: &str) -> Result<(), Wrong> {
    if field.contains(['\r', '\n', '\0']) {
        return Err(Wrong::FieldCharacter(field.to_owned()));
    }
    match field.split_once(':') {
        Some((name, _)) if !name.is_empty() => Ok(()),
        _ => Err(Wrong::Field(field.to_owned())),
    }
}

fn status_line(text: &str) -> Result<String, Wrong> {
    let line = match text.parse::<u16>() {
        Ok(status) => format!("HTTP/1.1 {status} "),
        Err(_) => text.to_owned(),
    };
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    match status {
        _ if line.contains(char::is_control) || !line.starts_with("HTTP/1.") => Err(Wrong::Status(text.to_owned())),
        Some(100 | 102..=199) => Err(Wrong::Interim(text.to_owned())),
        Some(101 | 200..=599) => Ok(line),
        _ => Err(Wrong::Status(text.to_owned())),
    }
}

fn is_named(field: &str, name: &str) -> bool {
    field
        .split(':')
        .next()
        .is_some_and(|typed| typed.eq_ignore_ascii_case(name))
}

fn head(lines: &[String]) -> Vec<u8> {
    let mut head = lines.join("\r\n").into_bytes();
    head.extend_from_slice(b"\r\n\r\n");
    head
}
