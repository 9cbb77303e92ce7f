use proptest::prelude::*;

use super::*;
use crate::message::fields;
use crate::rfc9111::reuse::{Forward, Reuse};
use crate::rfc9111::tests::{NOW, Shelf, get, request, response};

fn range(first: u64, last: u64) -> ByteRange {
    ByteRange::new(first, last).unwrap()
}

fn shelf(status: u16, asked: &[(&str, &str)], lines: &[(&str, &str)]) -> Shelf {
    let mut shelf = Shelf::new();
    let lines = [&[("Cache-Control", "max-age=3600")][..], lines].concat();
    shelf.store(&get(asked), &response(status, &lines), NOW).unwrap();
    shelf
}

#[test]
fn rfc9110_14_1_1_range_sets() {
    use RangeSpec::{From, FromTo, Suffix};
    let cases: &[(&str, Option<&[RangeSpec]>)] = &[
        ("bytes=0-1", Some(&[FromTo(0, 1)])),
        ("Bytes=0-1", Some(&[FromTo(0, 1)])),
        ("bytes=1-", Some(&[From(1)])),
        ("bytes=-5", Some(&[Suffix(5)])),
        ("bytes= 0-0 ,, -1 ", Some(&[FromTo(0, 0), Suffix(1)])),
        ("bytes=0-99999999999999999999999", Some(&[FromTo(0, u64::MAX)])),
        ("bytes=", None),
        ("bytes=,", None),
        ("bytes=2-1", None),
        ("bytes=-", None),
        ("bytes=a-1", None),
        ("bytes=1-a", None),
        ("bytes=--1", None),
        ("bytes=0-1,x", None),
        ("bytes 0-1", None),
        ("items=0-1", None),
        ("", None),
    ];
    for (value, expected) in cases {
        let found = RangeSet::parse(value.as_bytes());
        assert_eq!(found.as_ref().map(RangeSet::specs), *expected, "{value}");
    }
    let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
    assert!(RangeSet::parse(many(MAX_RANGES).as_bytes()).is_some());
    assert!(RangeSet::parse(many(MAX_RANGES + 1).as_bytes()).is_none());
    assert!(RangeSet::of(&fields(&[("Range", "bytes=0-1"), ("Range", "bytes=2-3")])).is_none());
}

#[test]
fn rfc9110_14_2_selection_from_a_complete_response() {
    let shelf = shelf(200, &[], &[("ETag", "\"1\"")]);
    let meta = &shelf.stored[0].0;
    let parts =
        |ranges: &[(u64, u64)]| Selection::Parts(ranges.iter().map(|(first, last)| range(*first, *last)).collect());
    let cases = [
        ("bytes=0-1", 11, parts(&[(0, 1)])),
        ("bytes=1-", 11, parts(&[(1, 10)])),
        ("bytes=-1", 11, parts(&[(10, 10)])),
        ("bytes=-50", 11, parts(&[(0, 10)])),
        ("bytes=5-50", 11, parts(&[(5, 10)])),
        ("bytes=11-", 11, Selection::Unsatisfiable),
        ("bytes=-0", 11, Selection::Unsatisfiable),
        ("bytes=0-", 0, Selection::Unsatisfiable),
        ("bytes=-5", 0, Selection::Whole),
        ("bytes=20-30, 1-2", 11, parts(&[(1, 2)])),
        ("bytes=0-1, 4-5", 11, parts(&[(0, 1), (4, 5)])),
        ("bytes=4-5, 0-1", 11, parts(&[(4, 5), (0, 1)])),
        ("bytes=0-1, 2-3", 11, parts(&[(0, 3)])),
        ("bytes=0-5, 3-8, 10-10", 11, parts(&[(0, 8), (10, 10)])),
        ("bytes=8-9, 0-1, 1-8", 11, parts(&[(0, 9)])),
        ("bytes=0-,0-,0-,0-", 11, parts(&[(0, 10)])),
        ("bytes=x", 11, Selection::Whole),
        ("items=0-1", 11, Selection::Whole),
    ];
    for (value, length, expected) in cases {
        assert_eq!(
            selection(&get(&[("Range", value)]), meta, length),
            expected,
            "{value} of {length}"
        );
    }
    let whole: &[(&str, &[(&str, &str)])] = &[
        ("GET", &[]),
        ("HEAD", &[("Range", "bytes=0-1")]),
        ("GET", &[("Range", "bytes=0-1"), ("If-Range", "\"2\"")]),
        ("GET", &[("Range", "bytes=0-1"), ("If-Range", "W/\"1\"")]),
        (
            "GET",
            &[("Range", "bytes=0-1"), ("If-Range", "\"1\""), ("If-Range", "\"1\"")],
        ),
    ];
    for (method, lines) in whole {
        assert_eq!(
            selection(&request(method, "/", lines), meta, 11),
            Selection::Whole,
            "{method} {lines:?}"
        );
    }
    let same = get(&[("Range", "bytes=0-1"), ("If-Range", "\"1\"")]);
    assert_eq!(selection(&same, meta, 11), parts(&[(0, 1)]));
    let mut missing = meta.clone();
    missing.status = 404;
    assert_eq!(
        selection(&get(&[("Range", "bytes=0-1")]), &missing, 11),
        Selection::Whole
    );
}

#[test]
fn rfc9110_14_4_content_range() {
    let found = |value: &str| ContentRange::parse(value.as_bytes()).map(|found| found.to_string());
    for good in ["bytes 0-4/10", "bytes 0-0/1", "bytes 5-9/*"] {
        assert_eq!(found(good).as_deref(), Some(good));
    }
    for bad in [
        "bytes 4-0/10",
        "bytes 0-10/10",
        "bytes */10",
        "bytes 0-4",
        "bytes=0-4/10",
        "bytes -4/10",
        "items 0-4/10",
        "",
    ] {
        assert_eq!(found(bad), None, "{bad}");
    }
}

#[test]
fn rfc9111_3_3_a_partial_response_answers_for_what_it_holds() {
    let asked = [("Range", "bytes=-5")];
    let shelf = shelf(206, &asked, &[("Content-Range", "bytes 4-8/9"), ("ETag", "\"1\"")]);
    let partial = *shelf.stored[0].0.partial().unwrap();
    let cases = [
        ("bytes=-5", Some(&[(4, 8)][..])),
        ("bytes=6-8", Some(&[(6, 8)])),
        ("bytes=6-", Some(&[(6, 8)])),
        ("bytes=-1", Some(&[(8, 8)])),
        ("bytes=4-4, 8-", Some(&[(4, 4), (8, 8)])),
        ("bytes=6-100", Some(&[(6, 8)])),
        ("bytes=3-8", None),
        ("bytes=-6", None),
        ("bytes=0-", None),
        ("bytes=4-4, 0-0", None),
        ("bytes=9-", None),
    ];
    for (value, expected) in cases {
        let request = get(&[("Range", value)]);
        let reuse = shelf.reuse(&request, NOW);
        match expected {
            Some(expected) => {
                assert!(matches!(reuse, Reuse::Fresh(_)), "{value}");
                let parts: Vec<(u64, u64)> = held_parts(&partial, &request.fields)
                    .into_iter()
                    .map(|part| (part.first(), part.last()))
                    .collect();
                assert_eq!(parts, expected, "{value}");
            }
            None => assert_eq!(reuse, Reuse::Forward(Forward::Partial), "{value}"),
        }
    }
    for lines in [&[][..], &[("Range", "bytes=6-8"), ("If-Range", "\"2\"")]] {
        assert_eq!(
            shelf.reuse(&get(lines), NOW),
            Reuse::Forward(Forward::Partial),
            "{lines:?}"
        );
    }
    let head = request("HEAD", "/", &[("Range", "bytes=6-8")]);
    assert_eq!(shelf.reuse(&head, NOW), Reuse::Forward(Forward::Partial));
    let mut unknown = shelf.stored[0].0.clone();
    unknown.set_partial(Some(Partial {
        complete: None,
        ..partial
    }));
    let holds = |value: &str| super::holds(&unknown, &get(&[("Range", value)]));
    assert!(holds("bytes=5-6") && !holds("bytes=5-") && !holds("bytes=-1"));
}

#[test]
fn rfc9111_3_3_the_body_must_be_what_was_announced() {
    let partial = |first, last, complete| Partial {
        held: range(first, last),
        complete,
        exact: true,
    };
    assert_eq!(partial(4, 9, Some(10)).after_body(6), Some(partial(4, 9, Some(10))));
    // An origin that counts one too far at the end.
    let slip = Partial {
        exact: false,
        ..partial(4, 8, Some(9))
    };
    assert_eq!(partial(4, 9, Some(10)).after_body(5), Some(slip));
    assert_eq!(partial(4, 9, Some(10)).after_body(4), None);
    assert_eq!(partial(4, 9, Some(10)).after_body(7), None);
    assert_eq!(partial(4, 9, Some(20)).after_body(5), None);
    assert_eq!(partial(4, 9, None).after_body(5), None);
    assert_eq!(partial(9, 9, Some(10)).after_body(0), None);
}

#[test]
fn rfc9111_3_3_a_range_counted_one_too_far_still_answers() {
    let asked = [("Range", "bytes=-5")];
    let mut shelf = shelf(206, &asked, &[("Content-Range", "bytes 4-9/10")]);
    let meta = &mut shelf.stored[0].0;
    let partial = meta.partial().unwrap().after_body(5).unwrap();
    meta.set_partial(Some(partial));
    for (value, text) in [
        ("bytes=-5", "01234"),
        ("bytes=6-8", "234"),
        ("bytes=6-", "234"),
        ("bytes=-1", "4"),
    ] {
        let request = get(&[("Range", value)]);
        assert!(matches!(shelf.reuse(&request, NOW), Reuse::Fresh(_)), "{value}");
        let [part] = held_parts(&partial, &request.fields)[..] else {
            panic!("{value}");
        };
        let offset = (part.first() - partial.held.first()) as usize;
        assert_eq!(&"01234"[offset..offset + part.len() as usize], text, "{value}");
    }
    assert_eq!(completion(&shelf.stored[0].0), None, "nothing is put together with it");
}

#[test]
fn a_part_does_not_take_the_place_of_the_same_whole() {
    let asked = [("Range", "bytes=0-4")];
    let part = |lines: &[(&str, &str)]| shelf(206, &asked, &[&[("Content-Range", "bytes 0-4/10")][..], lines].concat());
    let whole = |lines: &[(&str, &str)]| shelf(200, &[], lines);
    let (one, two) = ([("ETag", "\"1\"")], [("ETag", "\"2\"")]);
    for (new, stored, expected) in [
        (part(&one), whole(&one), false),
        (part(&one), whole(&two), true),
        (part(&[]), whole(&[]), true),
        (whole(&one), whole(&one), true),
        (whole(&one), part(&one), true),
        (part(&one), part(&one), true),
    ] {
        assert_eq!(supersedes(&new.stored[0].0, &stored.stored[0].0), expected);
    }
}

#[test]
fn rfc9111_3_4_a_partial_response_is_completed() {
    let asked = [("Range", "bytes=0-4")];
    let ask = |content_range: &str, lines: &[(&str, &str)]| {
        let shelf = shelf(206, &asked, &[&[("Content-Range", content_range)][..], lines].concat());
        let completion = completion(&shelf.stored[0].0)?;
        let tag = completion.if_range.map(|tag| String::from_utf8(tag).unwrap());
        Some((completion.range, tag))
    };
    let tag = ("ETag", "\"1\"");
    assert_eq!(ask("bytes 0-4/10", &[]), Some(("bytes=5-".to_owned(), None)));
    assert_eq!(
        ask("bytes 0-4/10", &[tag]),
        Some(("bytes=5-".to_owned(), Some("\"1\"".to_owned())))
    );
    assert_eq!(
        ask("bytes 0-4/10", &[("ETag", "W/\"1\"")]),
        Some(("bytes=5-".to_owned(), None))
    );
    assert_eq!(
        ask("bytes 5-9/10", &[tag]),
        Some(("bytes=0-4".to_owned(), Some("\"1\"".to_owned())))
    );
    assert_eq!(ask("bytes 2-4/10", &[tag]), None);
    assert_eq!(ask("bytes 0-4/*", &[tag]), None);

    let shelf = shelf(206, &asked, &[("Content-Range", "bytes 2-4/10"), tag]);
    let with = |first, last, complete, lines: &[(&str, &str)]| {
        let new = Partial {
            held: range(first, last),
            complete,
            exact: true,
        };
        let combined = combine(&shelf.stored[0].0, &new, &fields(lines), NOW)?;
        let pieces = combined
            .pieces
            .iter()
            .map(|piece| (piece.source, piece.offset, piece.length));
        let pieces: Vec<(Source, u64, u64)> = pieces.collect();
        Some((
            (combined.range.first, combined.range.last),
            combined.is_complete(),
            pieces,
        ))
    };
    use Source::{New, Stored};
    assert_eq!(
        with(5, 9, Some(10), &[tag]),
        Some(((2, 9), false, vec![(Stored, 0, 3), (New, 0, 5)]))
    );
    assert_eq!(
        with(3, 9, None, &[tag]),
        Some(((2, 9), false, vec![(Stored, 0, 3), (New, 2, 5)]))
    );
    assert_eq!(
        with(0, 2, Some(10), &[tag]),
        Some(((0, 4), false, vec![(New, 0, 3), (Stored, 1, 2)]))
    );
    assert_eq!(with(0, 9, Some(10), &[tag]), Some(((0, 9), true, vec![(New, 0, 10)])));
    assert_eq!(
        with(3, 3, Some(10), &[tag]),
        Some(((2, 4), false, vec![(Stored, 0, 3)]))
    );
    assert_eq!(with(6, 9, Some(10), &[tag]), None, "a gap");
    assert_eq!(with(5, 9, Some(11), &[tag]), None, "another length");
    assert_eq!(with(5, 9, Some(10), &[("ETag", "\"2\"")]), None);
    assert_eq!(with(5, 9, Some(10), &[("ETag", "W/\"1\"")]), None);
    assert_eq!(with(5, 9, Some(10), &[]), None);
    let slipped = Partial {
        held: range(5, 9),
        complete: Some(10),
        exact: false,
    };
    assert_eq!(combine(&shelf.stored[0].0, &slipped, &fields(&[tag]), NOW), None);
}

#[test]
fn rfc9110_14_6_multipart() {
    let multipart = Multipart {
        boundary: "xyz",
        content_type: Some(b"text/plain"),
        complete: Some(10),
    };
    let parts = [range(0, 1), range(4, 8)];
    let mut body = Vec::new();
    for part in parts {
        body.extend(multipart.part_head(part));
        body.extend(&b"0123456789"[part.first() as usize..=part.last() as usize]);
    }
    body.extend(multipart.end());
    let expected = "\r\n--xyz\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
        \r\n--xyz\r\nContent-Type: text/plain\r\nContent-Range: bytes 4-8/10\r\n\r\n45678\r\n--xyz--\r\n";
    assert_eq!(String::from_utf8(body).unwrap(), expected);
    assert_eq!(multipart.length(&parts), expected.len() as u64);
    assert_eq!(multipart.content_type(), "multipart/byteranges; boundary=xyz");
}

proptest! {
    #[test]
    fn arbitrary_fields_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..48)) {
        RangeSet::parse(&bytes);
        ContentRange::parse(&bytes);
        RangeSet::parse(&[b"bytes=", &bytes[..]].concat());
    }

    #[test]
    fn parts_hold_exactly_what_was_asked_for(
        specs in proptest::collection::vec((0u64..12, 0u64..12), 1..6),
        length in 1u64..12,
    ) {
        let text: Vec<String> = specs.iter().map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))).collect();
        let shelf = shelf(200, &[], &[]);
        let asked = get(&[("Range", &format!("bytes={}", text.join(",")))]);
        let parts = match selection(&asked, &shelf.stored[0].0, length) {
            Selection::Parts(parts) => parts,
            Selection::Unsatisfiable => Vec::new(),
            Selection::Whole => return Err(TestCaseError::fail("whole")),
        };
        for position in 0..length {
            let wanted = specs.iter().any(|(a, b)| (*a.min(b)..=*a.max(b)).contains(&position));
            let sent = parts.iter().filter(|part| (part.first..=part.last).contains(&position)).count();
            prop_assert_eq!(sent, usize::from(wanted));
        }
        prop_assert!(parts.iter().all(|part| part.last < length));
    }

    #[test]
    fn any_numbers_make_ranges_within_the_length(first in any::<u64>(), last in any::<u64>(), length in any::<u64>()) {
        for spec in [RangeSpec::FromTo(first.min(last), last.max(first)), RangeSpec::From(first), RangeSpec::Suffix(last)] {
            if let Some(found) = spec.within(length) {
                prop_assert!(found.first <= found.last && found.last < length && found.len() <= length);
            }
        }
    }
}
