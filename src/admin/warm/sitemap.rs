//! Sitemaps (<https://www.sitemaps.org/protocol.html>), also indexes of them and gzip.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use quick_xml::Reader;
use quick_xml::events::Event;

/// Bytes of one sitemap, unpacked: the protocol's own limit.
pub const LARGEST: u64 = 50 * 1024 * 1024;

/// URLs of one sitemap, or sitemaps of one index: the same.
const MAX_ENTRIES: usize = 50_000;

/// Sitemaps of one index that are read.
pub const MAX_SITEMAPS: usize = 1000;

/// What one file says.
#[derive(Debug, Default, PartialEq)]
pub struct Sitemap {
    /// With its priority in hundredths.
    pub urls: Vec<(String, i32)>,
    /// Of an index.
    pub sitemaps: Vec<String>,
}

/// Why a file is no sitemap.
#[derive(Debug, thiserror::Error)]
pub enum SitemapError {
    #[error("is no gzip: {0}")]
    Gzip(std::io::Error),
    #[error("is larger than 50 MiB")]
    TooLarge,
    #[error("is neither a sitemap nor an index of them")]
    Other,
    #[error("is no XML: {0}")]
    Xml(#[from] quick_xml::Error),
}

impl Sitemap {
    /// Reads a file as it came.
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: Vec<u8>) -> Result<Self, SitemapError> {
        // RFC 1952 §2.3.1.
        let text = match bytes.starts_with(&[0x1f, 0x8b]) {
            false => bytes,
            true => {
                let mut text = Vec::new();
                let unpacked = MultiGzDecoder::new(&*bytes).take(LARGEST + 1).read_to_end(&mut text);
                unpacked.map_err(SitemapError::Gzip)?;
                text
            }
        };
        if text.len() as u64 > LARGEST {
            return Err(SitemapError::TooLarge);
        }
        parse(&text)?.ok_or(SitemapError::Other)
    }
}

/// `None`: it is another kind of document.
fn parse(xml: &[u8]) -> Result<Option<Sitemap>, quick_xml::Error> {
    let mut reader = Reader::from_reader(xml);
    let (mut sitemap, mut is_sitemap) = (Sitemap::default(), false);
    let (mut text, mut url, mut priority) = (String::new(), None, 50);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer)? {
            Event::Start(start) => {
                is_sitemap |= matches!(start.local_name().as_ref(), "urlset" | "sitemapindex");
                text.clear();
            }
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
                        priority = (share * 100.0) as i32;
                    }
                    "url" => sitemap
                        .urls
                        .extend(url.take().map(|url| (url, std::mem::replace(&mut priority, 50)))),
                    "sitemap" => sitemap.sitemaps.extend(url.take()),
                    _ => {}
                }
                if sitemap.urls.len().max(sitemap.sitemaps.len()) >= MAX_ENTRIES {
                    return Ok(is_sitemap.then_some(sitemap));
                }
                text.clear();
            }
            Event::Eof => return Ok(is_sitemap.then_some(sitemap)),
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
        assert_eq!(parse(XML.as_bytes()).unwrap().unwrap().urls, expected);
    }

    #[test]
    fn indexes_and_gzip() {
        let index = "<sitemapindex><sitemap><loc>http://a/1.xml</loc></sitemap></sitemapindex>";
        assert_eq!(Sitemap::read(index.into()).unwrap().sitemaps, ["http://a/1.xml"]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(XML.as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(Sitemap::read(packed.clone()).unwrap().urls.len(), 2);
        assert!(Sitemap::read(packed[..packed.len() - 9].to_vec()).is_err());
    }

    #[test]
    fn what_is_none_is_said_and_what_is_too_much_is_left_out() {
        assert!(matches!(Sitemap::read(b"<a></b>".to_vec()), Err(SitemapError::Xml(_))));
        let zeros = vec![b' '; LARGEST as usize + 1];
        assert!(matches!(Sitemap::read(zeros), Err(SitemapError::TooLarge)));
        assert!(matches!(Sitemap::read(b"no".to_vec()), Err(SitemapError::Other)));
        let many = format!("<urlset>{}", "<url><loc>http://a/</loc></url>".repeat(MAX_ENTRIES + 1));
        assert_eq!(Sitemap::read(many.into_bytes()).unwrap().urls.len(), MAX_ENTRIES);
    }
}
