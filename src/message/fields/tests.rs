use super::*;

fn written(fields: &Fields, without: &'static [FieldName]) -> String {
    let mut out = Vec::new();
    fields.write_http1(&FieldNames::new(without), |piece| out.extend_from_slice(piece));
    String::from_utf8(out).unwrap()
}

#[test]
fn lines_keep_order_case_and_bytes() {
    let fields = fields(&[("B", "1"), ("a", ""), ("b", "\u{fc} \t2")]);
    let lines: Vec<_> = fields.iter().collect();
    assert_eq!(lines, [("B", &b"1"[..]), ("a", b""), ("b", "\u{fc} \t2".as_bytes())]);
    assert_eq!((fields.len(), fields.is_empty()), (3, false));
}

#[test]
fn names_are_found_in_any_case() {
    let fields = fields(&[
        ("Accept", "x"),
        ("ACCEPT", "y"),
        ("Accent", "z"),
        ("A_B", "u"),
        ("x", "one"),
    ]);
    assert_eq!(fields.get("accept"), Some(&b"x"[..]));
    assert_eq!(fields.get_all("aCCept").collect::<Vec<_>>(), [b"x", b"y"]);
    assert_eq!(fields.get("X"), Some(&b"one"[..]));
    // Same first, middle and last byte, same length: the tag alone must not decide.
    assert_eq!(Tag::of(b"accent"), Tag::of(b"accebt"));
    assert_eq!(fields.get("accebt"), None);
    assert_eq!(fields.get(""), None);
    assert!(!fields.contains("accep"));
}

#[test]
fn only_the_case_of_letters_makes_no_difference() {
    for (one, other) in (0..=255u8).flat_map(|one| (0..=255u8).map(move |other| (one, other))) {
        let expected = one.eq_ignore_ascii_case(&other);
        for (length, at) in [(1, 0), (7, 3), (8, 7), (9, 8), (19, 12)] {
            let (mut a, mut b) = ([b'n'; 19], [b'N'; 19]);
            (a[at], b[at]) = (one, other);
            assert_eq!(
                is_same_name(&a[..length], &b[..length]),
                expected,
                "{one} {other} {length} {at}"
            );
        }
    }
    assert!(!is_same_name(b"content-type", b"content-typ"));
}

#[test]
fn equal_names_have_equal_tags() {
    for byte in (0..=255).filter(|b| is_token_byte(*b)) {
        let (upper, lower) = (byte.to_ascii_uppercase(), byte.to_ascii_lowercase());
        assert_eq!(Tag::of(&[upper, b'x', upper]), Tag::of(&[lower, b'X', lower]), "{byte}");
    }
}

#[test]
fn set_and_remove_take_every_line_of_the_name() {
    let mut fields = fields(&[("A", "1"), ("b", "2"), ("a", "3")]);
    fields.set("a", "4");
    assert_eq!(written(&fields, &[]), "b: 2\r\na: 4\r\n");
    assert!(fields.remove("B"));
    assert!(!fields.remove("b"));
    assert!(!fields.retain(|_, _| true));
    assert!(fields.retain(|_, value| value != b"4"));
    assert!(fields.is_empty());
}

#[test]
fn tokens_are_found_in_any_line() {
    let fields = fields(&[("Connection", "close , TE"), ("connection", "Upgrade")]);
    for (token, expected) in [
        ("te", true),
        ("CLOSE", true),
        ("upgrade", true),
        ("e", false),
        ("close , te", false),
    ] {
        assert_eq!(fields.has_token("connection", token), expected, "{token}");
    }
}

#[test]
fn received_lines_are_written_as_they_came_with_white_space_mended() {
    let section = b"A: 1\r\nB:2\r\nC: \t3\r\nD: 4 \r\nE:\r\nF:\t6\r\nG: 7\r\n";
    let mut lines = Vec::new();
    let mut at = 0;
    for text in section.split_inclusive(|b| *b == b'\n') {
        let value = text[2..].trim_ascii();
        let start = text.iter().position(|b| Some(b) == value.first()).unwrap_or(2);
        let value = at + start..at + start + value.len();
        lines.push(Line::new(section, Tag::of(&text[..1]), at..at + 1, value));
        at += text.len();
    }
    let mut fields = Fields::from_section(section, lines);
    fields.push("H", "8");
    let all = "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: \r\nF: 6\r\nG: 7\r\nH: 8\r\n";
    assert_eq!(written(&fields, &[]), all);
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let line = all
            .split_inclusive('\n')
            .find(|line| line.starts_with(&name.to_uppercase()));
        let expected = all.replace(line.unwrap(), "");
        assert_eq!(
            written(&fields, Box::leak(Box::new([FieldName::new(name)]))),
            expected,
            "{name}"
        );
        let mut fewer = fields.clone();
        fewer.remove(name);
        assert_eq!(written(&fewer, &[]), expected, "{name}");
    }
}

#[test]
fn bytes_are_tokens_and_values_as_the_grammar_says() {
    for byte in 0..=255u8 {
        let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert_eq!(is_token_byte(byte), token, "{byte}");
        assert_eq!(is_token(&[b'a', byte]), token, "{byte}");
        let value = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        for length in [1, 17, 64] {
            let mut bytes = vec![b'v'; length];
            bytes[length - 1] = byte;
            assert_eq!(is_field_value(&bytes), value, "{byte}");
        }
    }
    assert!(!is_token(b""));
    assert!(is_field_value(b""));
}

#[test]
fn one_of_several_names_is_found_as_each_of_them_is() {
    const NAMES: FieldNames = FieldNames::new(&[FieldName::new("x-one"), FieldName::new("x-two")]);
    for (lines, expected) in [
        (&[][..], false),
        (&[("Accept", "*/*"), ("X-On", ""), ("X-Twos", "")], false),
        (&[("X-TWO", "")], true),
        (&[("Accept", "*/*"), ("x-one", "1")], true),
    ] {
        assert_eq!(super::fields(lines).contains_any(&NAMES), expected, "{lines:?}");
    }
    let mut fields = super::fields(&[("X-One", "1")]);
    fields.remove("x-one");
    assert!(!fields.contains_any(&NAMES));
}

#[test]
fn a_known_name_is_known_in_whatever_case_and_no_other_is() {
    for known in ["te", "x-own2", "keep-alive", "transfer-encoding"] {
        let name = FieldName::new(known);
        for at in 0..known.len() {
            // What stands in a head has no control characters.
            for byte in (b' '..=255).filter(|byte| *byte != 0x7f) {
                let mut other = known.to_ascii_uppercase().into_bytes();
                other[at] = byte;
                let same = other.eq_ignore_ascii_case(known.as_bytes());
                assert_eq!(name.is(Tag::of(&other), &other), same, "{}", other.escape_ascii());
            }
        }
        assert!(!name.is(Tag::of(b""), b""));
    }
}
