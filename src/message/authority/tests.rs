use proptest::prelude::*;

use super::*;
use crate::key::normalise_authority;

/// The rules one by one, each with a look of its own at the text.
fn is_acceptable(text: &str) -> bool {
    let (host, port) = split_port(text);
    host.len() <= MAX_HOST && is_host(host) && port.is_none_or(is_port_number)
}

fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[') {
        let address = literal.strip_suffix(']');
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || b"-_~".contains(&b);
    let name = host.strip_suffix('.').unwrap_or(host);
    name.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(is_name_byte))
}

fn is_port_number(port: &str) -> bool {
    port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn check(text: &str) -> Result<(), TestCaseError> {
    let parsed = Authority::parse(text.as_bytes());
    prop_assert_eq!(parsed.is_some(), is_acceptable(text), "{}", text);
    let leading = ["\r\n", "\r\nAccept: */*\r\n\r\n", " \t\r\n\r\n"].map(|behind| {
        let bytes = [text, behind].concat();
        Authority::leading(bytes.as_bytes(), text.len())
    });
    prop_assert!(
        leading.iter().all(|leading| leading.is_some() == parsed.is_some()),
        "{}",
        text
    );
    let leading = leading.into_iter().flatten();
    for authority in parsed.into_iter().chain(leading).chain([Authority::from(text)]) {
        prop_assert_eq!(authority.as_str(), text);
        prop_assert_eq!(authority.host_and_port(), split_port(text));
        for scheme in [Scheme::Http, Scheme::Https] {
            prop_assert_eq!(authority.normal(scheme), normalise_authority(scheme, text));
        }
    }
    Ok(())
}

#[test]
fn the_longest_names_and_ports_are_told_from_longer_ones() {
    let label = "a".repeat(63);
    let name = [&label[..], &label, &label, &label[..61]].join(".");
    for tail in [
        "", ".", "b.", "bc.", "bcd", ".:1", ":65535", ":65536", ":00001", ":000001", ":0", ":",
    ] {
        for text in [format!("{name}{tail}"), format!("a{tail}")] {
            check(&text).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn one_look_finds_what_the_rules_say(
        text in "([a-cA-C0-9._~-]{0,12}|\\[[0-9a-fA-F:.]{0,9}\\]?|\\[::(1|F)\\]|(a\\.|[A-Z]){0,20}|.{0,10})(:?|:[0-9]{1,6}|:[0-9x:+ ]{0,4})",
    ) {
        check(&text)?;
    }

    #[test]
    fn no_bytes_but_ascii_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..12), at in 0..12usize) {
        let mut name = *b"www.example.";
        for (to, from) in name[at..].iter_mut().zip(&bytes) {
            *to = *from;
        }
        if let Some(authority) = Authority::parse(&name) {
            prop_assert!(name.is_ascii() && is_acceptable(&authority));
        }
    }
}
