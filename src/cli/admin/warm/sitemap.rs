//! Sitemaps for `forebay warm`, from files and servers.

use std::io::Read as _;

use serde_json::{Value, json};

use crate::admin::warm::sitemap::{LARGEST, MAX_SITEMAPS, Sitemap};
use crate::cli::admin::client::{Failure, fetch};

/// The URLs of a sitemap, or of those that an index names.
///
/// # Errors
/// One of them cannot be read.
pub fn urls(place: &str) -> Result<Vec<Value>, Failure> {
    let first = read(place)?;
    let mut all = first.urls;
    let site = site(place);
    // An index names no other index.
    for place in first.sitemaps.iter().take(MAX_SITEMAPS) {
        if !place.starts_with("http://") {
            return Err(Failure::Usage(format!(
                "the sitemap {place:?} of an index must be an http:// URL"
            )));
        }
        // What an index names is on its own site, says the protocol: else it could have anything asked for from here.
        if site.is_some_and(|site| self::site(place) != Some(site)) {
            return Err(Failure::Usage(format!(
                "the sitemap {place:?} of an index must be on the same site as the index"
            )));
        }
        all.extend(read(place)?.urls);
    }
    let entries = all.into_iter();
    Ok(entries
        .map(|(url, priority)| json!({ "url": url, "priority": priority }))
        .collect())
}

/// Scheme and authority. `None`: it is a file.
fn site(place: &str) -> Option<&str> {
    let scheme = place.find("://")? + "://".len();
    let path = place.get(scheme..)?.find('/').map(|path| scheme + path);
    place.get(..path.unwrap_or(place.len()))
}

fn read(place: &str) -> Result<Sitemap, Failure> {
    let bytes = match place.starts_with("http://") || place.starts_with("https://") {
        true => fetch(place, LARGEST)?,
        false => {
            let mut bytes = Vec::new();
            let read = std::fs::File::open(place).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
            read.map_err(|error| Failure::Usage(format!("the sitemap {place:?} cannot be read: {error}")))?;
            bytes
        }
    };
    Sitemap::read(bytes).map_err(|error| Failure::Usage(format!("the sitemap {place:?} {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(urls("/none/such").is_err());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sitemap.xml");
        let xml = "<urlset><url><loc>http://a/</loc><priority>1.0</priority></url></urlset>";
        std::fs::write(&path, xml).unwrap();
        let place = path.to_str().unwrap();
        assert_eq!(urls(place).unwrap(), [json!({ "url": "http://a/", "priority": 100 })]);
        let index = "<sitemapindex><sitemap><loc>ftp://a/1.xml</loc></sitemap></sitemapindex>";
        std::fs::write(&path, index).unwrap();
        assert!(urls(place).unwrap_err().to_string().contains("must be an http:// URL"));
    }
}
