use proptest::prelude::*;

use super::*;

fn may_stand_in_path(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"#<>?\\`".contains(&byte)
}

fn may_stand_in_query(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"#<>\"".contains(&byte)
}

/// Where a target ends, byte by byte.
fn end(bytes: &[u8]) -> usize {
    let path = bytes.iter().take_while(|b| may_stand_in_path(**b)).count();
    match bytes.get(path) {
        Some(b'?') => path + 1 + bytes[path + 1..].iter().take_while(|b| may_stand_in_query(**b)).count(),
        _ => path,
    }
}

fn has_one_reading(path: &[u8]) -> bool {
    let mut previous = 0;
    path.iter().all(|byte| {
        let is_normalised = previous == b'/' && b"/.".contains(byte);
        previous = *byte;
        !is_normalised && (byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,=:@".contains(byte))
    })
}

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let scanned = Scanned::of(bytes);
    prop_assert_eq!(scanned.end(), end(bytes));
    let scanned = scanned.target(bytes);
    let Ok(text) = std::str::from_utf8(&bytes[..end(bytes)]) else {
        return Err(TestCaseError::fail("not ASCII"));
    };
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    for target in [scanned, Target::from(text)] {
        prop_assert_eq!(target.as_str(), text);
        prop_assert_eq!((target.path(), target.query()), (path, query));
        prop_assert_eq!(
            target.path_readings() == Readings::One,
            has_one_reading(path.as_bytes())
        );
        prop_assert_eq!(target.encoding() == Encoding::Percent, text.contains('%'));
    }
    Ok(())
}

#[test]
fn every_byte_is_known_in_path_and_query() {
    for byte in 0..=255u8 {
        for start in ["/", "/a/", "/?", "/a?b/", "/long/enough/for/two?", ""] {
            check(&[start.as_bytes(), &[byte], b"/c?d HTTP/1.1"].concat()).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn one_look_finds_what_the_rules_say(
        path in "/?([a-c/.]{0,9}|/{0,2}|[!-~]{0,20})",
        query in "(|\\?[!-~]{0,20}|\\?[a-c=%?]{0,20})",
        behind in "(| HTTP/1.1\r\nHost: [a-c.]{0,9}|.{0,3})",
    ) {
        check(format!("{path}{query}{behind}").as_bytes())?;
    }

    #[test]
    fn whatever_is_typed_has_a_path_and_maybe_a_query(text in ".{0,20}") {
        let target = Target::from(text.as_str());
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text.as_str(), None),
        };
        prop_assert_eq!((target.path(), target.query()), (path, query));
        prop_assert_eq!(target.path_readings() == Readings::One, has_one_reading(path.as_bytes()));
    }
}
