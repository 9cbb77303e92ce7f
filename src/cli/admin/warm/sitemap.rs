//! Sitemaps (<https://www.sitemaps.org/protocol.html>), also indexes of them and gzip.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::{Value, json};

use crate::cli::admin::client::{Failure, fetch};

/// Bytes of one sitemap, unpacked: the protocol's own limit.
const LARGEST: u64 = 50 * 1024 * 1024;

/// Sitemaps of one index that are read.
const MAX_SITEMAPS: usize = 1000;

/// What one file says.
#[derive(Debug, Default, PartialEq)]
struct Sitemap {
    /// With its priority in hundredths.
    urls: Vec<(String, i64)>,
    /// Of an index.
    sitemaps: Vec<String>,
}

/// The URLs of a sitemap, or of those that an index names.
///
/// # Errors
/// One of them cannot be read.
pub fn urls(place: &str) -> Result<Vec<Value>, Failure> {
    let first = read(place)?;
    let mut all = first.urls;
    // An index names no other index.
    for place in first.sitemaps.iter().take(MAX_SITEMAPS) {
        if !place.starts_with("http://") {
            return Err(Failure::Usage(format!(
                "the sitemap {place:?} of an index must be an http:// URL"
            )));
        }
        all.extend(read(place)?.urls);
    }
    let entries = all.into_iter();
    Ok(entries
        .map(|(url, priority)| json!({ "url": url, "priority": priority }))
        .collect())
}

fn read(place: &str) -> Result<Sitemap, Failure> {
    let wrong = |what: String| Failure::Usage(format!("the sitemap {place:?} {what}"));
    let bytes = match place.starts_with("http://") || place.starts_with("https://") {
        true => fetch(place, LARGEST)?,
        false => {
            let mut bytes = Vec::new();
            let read = std::fs::File::open(place).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
            read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
            bytes
        }
    };
    // RFC 1952 §2.3.1.
    let text = match bytes.starts_with(&[0x1f, 0x8b]) {
        false => bytes,
        true => {
            let mut text = Vec::new();
            let unpacked = MultiGzDecoder::new(&*bytes).take(LARGEST + 1).read_to_end(&mut text);
            unpacked.map_err(|error| wrong(format!("is no gzip: {error}")))?;
            text
        }
    };
    if text.len() as u64 > LARGEST {
        return Err(wrong("is larger than 50 MiB".to_owned()));
    }
    parse(&text).map_err(|error| wrong(format!("is no XML: {error}")))
}

fn parse(xml: &[u8]) -> Result<Sitemap, quick_xml::Error> {
    let mut reader = Reader::from_reader(xml);
    let mut sitemap = Sitemap::default();
    let (mut text, mut url, mut priority) = (String::new(), None, 50);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer)? {
            Event::Start(_) => text.clear(),
            Event::Text(part) => text.push_str(&part),
            Event::CData(part) => text.push_str(&part),
            Event::GeneralRef(name) => text.push_str(match &*name {
                "amp" => "&",
                "lt" => "<",
                "gt" => ">",
                "quot" => "\"",
                "apos" => "'",
                _ => "",
            }),
            Event::End(end) => {
                match end.local_name().as_ref() {
                    "loc" => url = Some(text.trim().to_owned()),
                    "priority" => {
                        let share = text.trim().parse::<f64>().unwrap_or(0.5).clamp(0.0, 1.0);
                        priority = (share * 100.0) as i64;
                    }
                    "url" => sitemap
                        .urls
                        .extend(url.take().map(|url| (url, std::mem::replace(&mut priority, 50)))),
                    "sitemap" => sitemap.sitemaps.extend(url.take()),
                    _ => {}
                }
                text.clear();
            }
            Event::Eof => return Ok(sitemap),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const XML: &str = "<?xml version=\"1.0\"?><urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\
        <url><loc> http://a/x?b=1&amp;c=2 </loc><priority>0.8</priority></url><url><loc><![CDATA[http://a/y]]></loc></url></urlset>";

    #[test]
    fn urls_with_their_priority() {
        let expected = vec![("http://a/x?b=1&c=2".to_owned(), 80), ("http://a/y".to_owned(), 50)];
        assert_eq!(parse(XML.as_bytes()).unwrap().urls, expected);
    }

    #[test]
    fn indexes_and_gzip() {
        let index = "<sitemapindex><sitemap><loc>http://a/1.xml</loc></sitemap></sitemapindex>";
        assert_eq!(parse(index.as_bytes()).unwrap().sitemaps, ["http://a/1.xml"]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sitemap.xml.gz");
        let mut file = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        file.write_all(XML.as_bytes()).unwrap();
        std::fs::write(&path, file.finish().unwrap()).unwrap();
        assert_eq!(urls(path.to_str().unwrap()).unwrap().len(), 2);
    }

    #[test]
    fn what_is_none_is_said() {
        assert!(parse(b"<a></b>").is_err());
        assert!(urls("/none/such").is_err());
    }
}
