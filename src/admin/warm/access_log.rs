//! What an access log says is asked for most: Forebay's own in JSON, and the combined format of whoever writes it.

use std::collections::HashMap;
use std::io::{self, BufRead, Read as _};

use serde::Deserialize;

/// Bytes of one line; in a longer one nothing is read.
const LONGEST_LINE: u64 = 64 * 1024;

/// Bytes of a URL: what the log itself cuts is no URL any more.
const LONGEST_URL: usize = 2048;

/// Different URLs that are counted at once. Beyond, those that came up least so far are forgotten (lossy counting, Manku and Motwani, 2002):
/// what is asked for most stands out all the same.
const MAX_COUNTED: usize = 200_000;

/// Where what the log does not say comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Site {
    /// `http` or `https`.
    scheme: Option<String>,
    host: Option<String>,
}

/// Why a log cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("says nothing of hosts: name the site, like http://example.com")]
    NoHost,
}

/// One line of ours.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    method: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    target: String,
    #[serde(default)]
    status: u16,
}

impl Site {
    /// `http://example.com` or `https://example.com`. `None`: it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let host = host.strip_suffix('/').unwrap_or(host);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']' | '_');
        let is_site = matches!(scheme, "http" | "https") && !host.is_empty() && host.chars().all(is_plain);
        is_site.then(|| Self {
            scheme: Some(scheme.to_owned()),
            host: Some(host.to_owned()),
        })
    }
}

/// The URLs that GETs were answered for with 2xx, those that came up most first, with how often.
///
/// # Errors
/// The log cannot be read, or has lines that lack the host.
pub fn ranked(mut log: impl BufRead, site: &Site, most: usize) -> Result<Vec<(String, u64)>, LogError> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut forgotten = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        if log.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == LONGEST_LINE {
            skip_line(&mut log)?;
            continue;
        }
        let Some(url) = asked_for(&line, site)? else { continue };
        // What may have come up before is taken to have done so as often as what was forgotten.
        *counts.entry(url).or_insert(forgotten) += 1;
        while counts.len() > MAX_COUNTED {
            forgotten += 1;
            counts.retain(|_, count| *count > forgotten);
        }
    }
    let mut ranked: Vec<(String, u64)> = counts.into_iter().collect();
    ranked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    ranked.truncate(most);
    Ok(ranked)
}

fn skip_line(log: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = log.fill_buf()?;
        let end = memchr::memchr(b'\n', buffer);
        let (read, is_over) = match end {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        log.consume(read);
        if is_over {
            return Ok(());
        }
    }
}

/// The URL of a line. `None`: it is about something else, or what was asked for is not to be seen.
fn asked_for(line: &[u8], site: &Site) -> Result<Option<String>, LogError> {
    let line = match line.trim_ascii() {
        [] => return Ok(None),
        line if line.starts_with(b"{") => match serde_json::from_slice::<Line>(line) {
            Ok(line) => line,
            Err(_) => return Ok(None),
        },
        line => match combined(line) {
            Some(line) => line,
            None => return Ok(None),
        },
    };
    let target = &line.target;
    // A masked secret, an escaped byte or a cut end: what it was is not known.
    let is_shown = target.starts_with('/') && !target.contains(['\\', '…', '"', ' ']) && !target.contains("***");
    if line.method != "GET" || !(200..300).contains(&line.status) || !is_shown {
        return Ok(None);
    }
    let scheme = site.scheme.as_deref().unwrap_or("http");
    let host = match (line.host.is_empty(), &site.host) {
        (false, _) => line.host.as_str(),
        (true, Some(host)) => host,
        (true, None) => return Err(LogError::NoHost),
    };
    let url = format!("{scheme}://{host}{target}");
    Ok((url.len() <= LONGEST_URL).then_some(url))
}

/// `$remote_addr - $remote_user [$time_local] "$request" $status ...`
fn combined(line: &[u8]) -> Option<Line> {
    let line = std::str::from_utf8(line).ok()?;
    let (_, rest) = line.split_once("] \"")?;
    let (request, rest) = rest.split_once("\" ")?;
    let mut request = request.split(' ');
    let (method, target) = (request.next()?, request.next()?);
    Some(Line {
        method: method.to_owned(),
        host: String::new(),
        target: target.to_owned(),
        status: rest.split(' ').next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked_of(log: &str, site: &str) -> Result<Vec<(String, u64)>, LogError> {
        ranked(log.as_bytes(), &Site::parse(site).unwrap_or_default(), 10)
    }

    fn json(method: &str, target: &str, status: u16) -> String {
        format!(
            "{{\"time\":\"x\",\"method\":\"{method}\",\"host\":\"a.test\",\"target\":\"{target}\",\"status\":{status}}}\n"
        )
    }

    #[test]
    fn what_was_answered_most_comes_first() {
        let log = [
            json("GET", "/a", 200),
            json("GET", "/b?x=1", 200),
            json("GET", "/b?x=1", 206),
            json("POST", "/c", 200),
            json("GET", "/d", 404),
            json("GET", "/e?token=***", 200),
            json("GET", "/f\\\\x00", 200),
            json("GET", "/g…", 200),
            "not a line\n{\n\n".to_owned(),
        ];
        let expected = vec![("http://a.test/b?x=1".to_owned(), 2), ("http://a.test/a".to_owned(), 1)];
        assert_eq!(ranked_of(&log.concat(), "").unwrap(), expected);
        let secure = ranked_of(&log.concat(), "https://b.test").unwrap();
        assert_eq!(secure[0].0, "https://a.test/b?x=1", "the log knows the host better");
    }

    #[test]
    fn combined_lines_need_a_site() {
        let line = |request: &str, status: u16| {
            format!("192.0.2.1 - - [31/Jan/2026:23:59:59 +0000] \"{request}\" {status} 5 \"-\" \"curl/8 \\x22\"\n")
        };
        let log = [
            line("GET /a HTTP/1.1", 200),
            line("GET /b HTTP/1.1", 304),
            line("-", 400),
        ]
        .concat();
        assert_eq!(
            ranked_of(&log, "https://a.test/").unwrap(),
            [("https://a.test/a".to_owned(), 1)]
        );
        assert!(matches!(ranked_of(&log, ""), Err(LogError::NoHost)));
        for wrong in ["a.test", "ftp://a", "http://", "http://a/b", "http://a b"] {
            assert_eq!(Site::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_line_and_no_variety_makes_it_large() {
        let mut log = "x".repeat(3 * LONGEST_LINE as usize);
        log.push('\n');
        for _ in 0..3 {
            log.push_str(&json("GET", "/hot", 200));
        }
        for number in 0..MAX_COUNTED + 10 {
            log.push_str(&json("GET", &format!("/{number}"), 200));
        }
        let ranked = ranked(log.as_bytes(), &Site::default(), 2).unwrap();
        assert_eq!(ranked[0], ("http://a.test/hot".to_owned(), 3));
        assert_eq!(ranked.len(), 2);
    }
}
