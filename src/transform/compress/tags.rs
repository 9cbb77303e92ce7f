//! Entity tags of recoded responses.
//!
//! A strong tag names bytes (RFC 9110 §8.8.1), so what is compressed here needs one of its own: the origin's with a suffix. In conditions
//! the suffix is taken off again before anybody who does not know it sees it. Weak tags stay: they name what is meant by the bytes,
//! and that is the same.

use super::{Recoding, names_dictionary};
use crate::message::Fields;
use crate::transform::negotiate::Accepted;

/// Stands in front of the coding. No application is known to end its tags like this; those that add a coding of their own write `-gzip`,
/// `--gzip` or `;gzip`.
const MARK: &[u8] = b";fb-";

/// The tag of the recoded response. `None`: it stays as it is, because it is weak, or no entity tag at all.
pub fn suffixed(etag: &[u8], recoding: Recoding) -> Option<Vec<u8>> {
    let inner = etag.trim_ascii().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'"') {
        return None;
    }
    Some([b"\"", inner, MARK, recoding.name().as_bytes(), b"\""].concat())
}

/// How the response was recoded that a tag of ours stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Recoded(Recoding),
    /// With a dictionary, of which the tag names only a part.
    WithDictionary,
}

/// The origin's tag in one of ours, and how it was recoded. `None`: it is none of ours.
pub fn original(tag: &[u8]) -> Option<(Vec<u8>, Mark)> {
    let inner = tag.strip_suffix(b"\"")?;
    let at = memchr::memmem::rfind(inner, MARK)?;
    let (inner, marked) = inner.split_at(at);
    let name = marked.strip_prefix(MARK)?;
    let known = Recoding::ALL
        .into_iter()
        .find(|recoding| recoding.as_str().as_bytes() == name);
    let mark = match known {
        Some(recoding) => Mark::Recoded(recoding),
        None if names_dictionary(name) => Mark::WithDictionary,
        None => return None,
    };
    inner.contains(&b'"').then(|| ([inner, b"\""].concat(), mark))
}

/// Takes our suffixes out of the conditions of a request, for whoever evaluates them by the origin's tags.
///
/// `If-Match` asks whether the resource has changed, so any suffix goes (RFC 9110 §13.1.1). `If-None-Match` asks whether what the client has
/// would be sent to it again: a tag whose coding it does not accept (any more) is left out (§13.1.2), because a cache on the
/// way may ask for somebody else than it has it from. `If-Range` asks for a part of the recoded body, and there are no parts of it:
/// the client gets the whole (§13.1.5).
pub fn restore_conditions(request: &mut Fields, accepted: Accepted) {
    if names_ours(request, "if-match") {
        rewrite(request, "If-Match", |_| true);
    }
    if names_ours(request, "if-none-match") {
        rewrite(request, "If-None-Match", |mark| is_acceptable(mark, accepted));
    }
    if names_ours(request, "if-range") {
        request.remove("if-range");
        request.remove("range");
    }
}

/// The tag by which a client knows a response that the origin has just confirmed (304) with `etag`: one of ours, if it asked for that and
/// accepts it.
pub fn confirmed(request: &Fields, etag: &[u8], accepted: Accepted) -> Option<Vec<u8>> {
    request
        .get_all("if-none-match")
        .flat_map(members)
        .find(|member| match original(member) {
            Some((tag, mark)) => tag == etag.trim_ascii() && is_acceptable(mark, accepted),
            None => false,
        })
        .map(<[u8]>::to_vec)
}

fn is_acceptable(mark: Mark, accepted: Accepted) -> bool {
    match mark {
        Mark::Recoded(Recoding::To(coding)) => accepted.accepts(coding),
        Mark::Recoded(Recoding::Undone) => accepted.accepts_identity(),
        // Nothing that passes is compressed like that, so nothing of it is confirmed either.
        Mark::Recoded(Recoding::Against(..)) | Mark::WithDictionary => false,
    }
}

/// Whether a list has a member with one of our suffixes. Most have none, and then nothing is copied.
fn names_ours(request: &Fields, name: &str) -> bool {
    request
        .get_all(name)
        .any(|line| memchr::memmem::find(line, MARK).is_some() && members(line).any(|tag| original(tag).is_some()))
}

/// Puts the origin's tags in the place of ours that `keeps` says yes to; the others of ours go.
fn rewrite(request: &mut Fields, name: &str, keeps: impl Fn(Mark) -> bool) {
    let mut tags: Vec<Vec<u8>> = Vec::new();
    for member in request.get_all(name).flat_map(members) {
        let tag = match original(member) {
            Some((tag, mark)) if keeps(mark) => tag,
            Some(_) => continue,
            None => member.to_vec(),
        };
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    match tags.is_empty() {
        true => drop(request.remove(name)),
        false => request.set(name, tags.join(&b", "[..])),
    }
}

/// The members of a list of entity tags; commas inside of quotes are part of a tag (RFC 9110 §8.8.3).
fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    line.split(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    })
    .map(<[u8]>::trim_ascii)
    .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::negotiate::{Coding, DictionaryCoding};

    const BR: Recoding = Recoding::To(Coding::Br);

    fn text(bytes: Option<Vec<u8>>) -> Option<String> {
        bytes.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn strong_tags_get_a_suffix_and_lose_it_again() {
        for (etag, expected) in [
            ("\"a\"", Some("\"a;fb-br\"")),
            (" \"a,b\" ", Some("\"a,b;fb-br\"")),
            ("\"\"", Some("\";fb-br\"")),
            ("W/\"a\"", None),
            ("a", None),
            ("\"a", None),
            ("\"", None),
            ("\"a\", \"b\"", None),
        ] {
            let suffixed = suffixed(etag.as_bytes(), BR);
            assert_eq!(text(suffixed.clone()).as_deref(), expected, "{etag}");
            if let Some(tag) = suffixed {
                assert_eq!(
                    original(&tag),
                    Some((etag.trim().as_bytes().to_vec(), Mark::Recoded(BR))),
                    "{etag}"
                );
            }
        }
        for foreign in [
            "\"a\"",
            "\"a-gzip\"",
            "\"a;gzip\"",
            ";fb-br\"",
            "\"a;fb-lz4\"",
            "\"a;fb-dcz\"",
            "\"a;fb-dcz-12\"",
            "\"a;fb-gzip-000102030405060708090a0b0c0d0e0f\"",
            "\"a;fb-br",
            "",
        ] {
            assert_eq!(original(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn tags_name_the_dictionary() {
        let digest = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let recoding = Recoding::Against(DictionaryCoding::Dcb, digest);
        let tag = suffixed(b"\"a\"", recoding).unwrap();
        assert_eq!(tag, b"\"a;fb-dcb-000102030405060708090a0b0c0d0e0f\"");
        assert_eq!(original(&tag), Some((b"\"a\"".to_vec(), Mark::WithDictionary)));
        let value = String::from_utf8(tag).unwrap();
        for (name, expected) in [("If-Match", Some("\"a\"")), ("If-None-Match", None), ("If-Range", None)] {
            let mut request = Fields::new();
            request.push("Accept-Encoding", "br, dcb");
            request.push(name, &value);
            let accepted = Accepted::of(&request);
            restore_conditions(&mut request, accepted);
            assert_eq!(request.get(name), expected.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn conditions_name_the_origins_tags_again() {
        let table = [
            ("If-Match", "\"a;fb-br\"", Some("\"a\"")),
            (
                "If-Match",
                "\"a;fb-zstd\", \"a;fb-br\" ,\"b,c;fb-gzip\"",
                Some("\"a\", \"b,c\""),
            ),
            ("If-Match", "*", Some("*")),
            ("If-Match", "W/\"a\"", Some("W/\"a\"")),
            ("If-None-Match", "\"a;fb-br\"", Some("\"a\"")),
            ("If-None-Match", "W/\"a;fb-br\"", Some("W/\"a\"")),
            ("If-None-Match", "\"a;fb-zstd\"", None),
            ("If-None-Match", "\"a;fb-zstd\", \"b\"", Some("\"b\"")),
            ("If-None-Match", "\"a;fb-identity\"", Some("\"a\"")),
            ("If-None-Match", "\"a\", \"x", Some("\"a\", \"x")),
            ("If-Range", "\"a\"", Some("\"a\"")),
            ("If-Range", "\"a;fb-br\"", None),
        ];
        for (name, value, expected) in table {
            let mut request = Fields::new();
            request.push("Accept-Encoding", "br");
            request.push("Range", "bytes=0-1");
            request.push(name, value);
            let accepted = Accepted::of(&request);
            restore_conditions(&mut request, accepted);
            assert_eq!(request.get(name), expected.map(str::as_bytes), "{name}: {value}");
            let whole = name == "If-Range" && expected.is_none();
            assert_eq!(request.contains("range"), !whole, "{name}: {value}");
        }
    }

    #[test]
    fn a_confirmation_speaks_of_what_the_client_has() {
        let mut request = Fields::new();
        request.push("Accept-Encoding", "br");
        request.push("If-None-Match", "\"a;fb-zstd\", \"b\", \"a;fb-br\"");
        let accepted = Accepted::of(&request);
        assert_eq!(
            text(confirmed(&request, b"\"a\"", accepted)).as_deref(),
            Some("\"a;fb-br\"")
        );
        assert_eq!(confirmed(&request, b"\"b\"", accepted), None);
    }
}
