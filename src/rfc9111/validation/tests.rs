use proptest::prelude::*;

use super::*;
use crate::message::fields;
use crate::rfc9111::tests::{NOW, Shelf, at_once, dated_fields, get, request, response};

const STALE: (&str, &str) = ("Cache-Control", "max-age=0");

fn stored(request: &RequestHead, lines: &[(&str, &str)]) -> (StoredMeta, Fields) {
    let mut shelf = Shelf::new();
    let mut head = response(200, &[]);
    head.fields = dated_fields(lines);
    shelf.store(request, &head, NOW).unwrap();
    shelf.stored.remove(0)
}

fn tag(value: &str) -> EntityTag {
    EntityTag::of(&fields(&[("ETag", value)])).unwrap()
}

#[test]
fn tags_of_any_length_are_kept_whole() {
    for length in [0, 1, SHORT_TAG - 3, SHORT_TAG - 2, SHORT_TAG - 1, 100] {
        let opaque = format!("\"{}\"", "a".repeat(length));
        let (strong, weak) = (tag(&opaque), tag(&format!("W/{opaque}")));
        assert_eq!(strong.to_bytes(), opaque.as_bytes());
        assert_eq!(weak.to_bytes(), format!("W/{opaque}").as_bytes());
        assert!(strong.is_weakly(&weak) && strong.is_strongly(&strong) && !strong.is_strongly(&weak));
        assert!(!strong.is_weakly(&tag(&format!("\"{}\"", "a".repeat(length + 1)))));
        let on_heap = if opaque.len() > SHORT_TAG { opaque.len() } else { 0 };
        assert_eq!(strong.heap_size(), on_heap);
    }
}

#[test]
fn the_last_modification_is_kept_with_its_strength() {
    for millis in [0, 1, NOW.as_millis(), Timestamp::from_secs(253_402_300_799).as_millis()] {
        let time = Timestamp::from_millis(millis);
        for (date, strong) in [
            (None, false),
            (Some(time), false),
            (Some(time.plus(std::time::Duration::from_secs(1))), true),
        ] {
            let kept = LastModified::new(time, date);
            assert_eq!((kept.time(), kept.is_strong()), (time, strong), "{millis}");
        }
    }
}

#[test]
fn rfc9110_8_8_3_2_comparison() {
    let cases = [
        ("W/\"1\"", "W/\"1\"", false, true),
        ("W/\"1\"", "W/\"2\"", false, false),
        ("W/\"1\"", "\"1\"", false, true),
        ("\"1\"", "\"1\"", true, true),
        ("\"1\"", "\"2\"", false, false),
        ("1", "1", false, true),
        ("1", "\"1\"", false, false),
    ];
    for (one, other, strongly, weakly) in cases {
        assert_eq!(tag(one).is_strongly(&tag(other)), strongly, "{one} {other}");
        assert_eq!(tag(one).is_weakly(&tag(other)), weakly, "{one} {other}");
        assert_eq!(tag(one).to_bytes(), one.as_bytes());
    }
    assert_eq!(EntityTag::of(&fields(&[("ETag", "")])), None);
    assert_eq!(EntityTag::of(&fields(&[("ETag", "\"1\""), ("ETag", "\"2\"")])), None);
    assert!(!tag("\"1\", \"2\"").is_strong());
}

#[test]
fn rfc9110_13_1_5_if_range_compares_strongly() {
    let strong: &[(&str, &str)] = &[("ETag", "\"1\""), ("Last-Modified", "@-60"), ("Date", "@0")];
    let weak: &[(&str, &str)] = &[("ETag", "W/\"1\""), ("Last-Modified", "@0"), ("Date", "@0")];
    let minute_ago = "Wed, 31 Dec 2025 23:59:00 GMT";
    let now = "Thu, 01 Jan 2026 00:00:00 GMT";
    let cases = [
        (strong, "\"1\"", true),
        (strong, "W/\"1\"", false),
        (strong, "\"2\"", false),
        (strong, "\"1\", \"2\"", false),
        (strong, "1", false),
        (strong, minute_ago, true),
        (strong, "Wednesday, 31-Dec-25 23:59:00 GMT", true),
        (strong, now, false),
        (weak, "W/\"1\"", false),
        (weak, "\"1\"", false),
        (weak, now, false),
        (&[], "\"1\"", false),
        (&[], minute_ago, false),
        (strong, "", false),
    ];
    for (lines, value, expected) in cases {
        let validators = Validators::of(&dated_fields(lines), NOW);
        assert_eq!(
            validators.if_range_holds(value.as_bytes(), NOW),
            expected,
            "{lines:?} {value}"
        );
    }
}

#[test]
fn rfc9110_15_4_5_fields_of_a_304() {
    let mut found = fields(&[
        ("Date", "x"),
        ("ETag", "\"1\""),
        ("Last-Modified", "x"),
        ("Cache-Control", "max-age=1"),
        ("Content-Location", "/x"),
        ("Expires", "x"),
        ("Vary", "x"),
        ("Content-Type", "text/html"),
        ("Content-Encoding", "br"),
        ("Content-Language", "de"),
        ("X-Own", "x"),
    ]);
    keep_for_not_modified(&mut found);
    let names: Vec<&str> = found.iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "Date",
            "ETag",
            "Cache-Control",
            "Content-Location",
            "Expires",
            "Vary",
            "X-Own"
        ]
    );
    let mut dated = fields(&[("Last-Modified", "x")]);
    keep_for_not_modified(&mut dated);
    assert!(dated.contains("last-modified"));
}

#[test]
fn rfc9111_4_3_1_our_own_conditions() {
    let conditions = |asked: &[(&str, &str)], known: &[(StoredMeta, Fields)]| {
        let mut asked = fields(asked);
        make_conditional(&mut asked, known.iter().map(|(meta, fields)| (meta, fields)));
        let lines = asked
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)));
        lines.collect::<Vec<_>>()
    };
    let modified = "Wed, 31 Dec 2025 23:59:00 GMT";
    let both = stored(&get(&[]), &[STALE, ("ETag", "W/\"1\""), ("Last-Modified", "@-60")]);
    let dated = stored(&get(&[]), &[STALE, ("Last-Modified", "@-60")]);
    let foreign = stored(&get(&[]), &[STALE, ("ETag", "abc")]);
    let tagged = stored(&get(&[("A", "2")]), &[STALE, ("ETag", "\"2\""), ("Vary", "A")]);
    let clients = [
        ("If-None-Match", "\"x\""),
        ("If-Modified-Since", "x"),
        ("Range", "bytes=0-1"),
        ("If-Range", "\"x\""),
        ("Abc", "123"),
    ];
    assert_eq!(
        conditions(&clients, std::slice::from_ref(&both)),
        [
            "Abc: 123".to_owned(),
            "If-None-Match: W/\"1\"".to_owned(),
            format!("If-Modified-Since: {modified}")
        ]
    );
    assert_eq!(conditions(&[], &[dated]), [format!("If-Modified-Since: {modified}")]);
    assert_eq!(conditions(&[], &[foreign]), ["If-None-Match: abc"]);
    assert_eq!(
        conditions(&[], &[both.clone(), tagged, both]),
        ["If-None-Match: W/\"1\", \"2\""]
    );
}

#[test]
fn rfc9111_4_3_4_which_stored_response_a_304_is_about() {
    let with = |lines: &[(&str, &str)], date: u64| {
        let (mut meta, _) = stored(&get(&[]), &[&[STALE][..], lines].concat());
        meta.date = Timestamp::from_secs(date);
        meta
    };
    let strong = with(&[("ETag", "\"1\"")], 1);
    let other = with(&[("ETag", "\"2\"")], 2);
    let weak = with(&[("ETag", "W/\"3\"")], 3);
    let newer_weak = with(&[("ETag", "W/\"3\"")], 4);
    let dated = with(&[("Last-Modified", "@-60")], 5);
    let all = [&strong, &other, &weak, &newer_weak, &dated];
    let selected = |candidates: &[&StoredMeta], answer: &[(&str, &str)]| {
        let candidates = candidates.iter().map(|meta| (meta.date.as_secs(), *meta));
        selected_by_304(candidates, &dated_fields(answer), NOW)
    };
    assert_eq!(selected(&all, &[("ETag", "\"1\"")]), [1]);
    assert_eq!(selected(&all, &[("ETag", "\"2\"")]), [2]);
    assert_eq!(selected(&all, &[("ETag", "\"4\"")]), [0u64; 0]);
    assert_eq!(selected(&all, &[("ETag", "W/\"3\"")]), [4]);
    assert_eq!(selected(&all, &[("ETag", "\"3\"")]), [0u64; 0], "strong against weak");
    assert_eq!(selected(&all, &[("Last-Modified", "@-60")]), [5]);
    assert_eq!(selected(&all, &[("Last-Modified", "@-61")]), [0u64; 0]);
    assert_eq!(selected(&all, &[]), [0u64; 0]);
    assert_eq!(selected(&[&strong], &[]), [1]);
    assert_eq!(selected(&[&strong], &[("ETag", "\"2\"")]), [0u64; 0]);
}

fn freshened(asked: &RequestHead, old: &[(&str, &str)], new: &[(&str, &str)]) -> Freshened {
    let shelf = Shelf::new();
    let (meta, known) = stored(&get(&[("A", "1")]), old);
    let mut answer = response(304, &[]);
    answer.fields = dated_fields(new);
    freshen(asked, &meta, &known, &answer, at_once(NOW), &shelf.policy())
}

#[test]
fn rfc9111_4_3_4_what_a_304_makes_of_a_stored_response() {
    let old = [STALE, ("ETag", "\"1\"")];
    let with = |asked: &[(&str, &str)], new: &[(&str, &str)]| match freshened(&get(asked), &old, new) {
        Freshened::Store(accepted) => Ok(accepted.meta),
        Freshened::Leave(_, reason) => Err((reason, "leave")),
        Freshened::Remove(_, reason) => Err((reason, "remove")),
    };
    let fresh = ("Cache-Control", "max-age=60");
    assert!(with(&[], &[fresh]).unwrap().is_fresh(NOW));
    assert_eq!(
        with(&[], &[("Cache-Control", "no-store")]).unwrap_err(),
        (Unstorable::NoStore, "remove")
    );
    assert_eq!(
        with(&[], &[("Cache-Control", "private")]).unwrap_err(),
        (Unstorable::Private, "remove")
    );
    assert_eq!(
        with(&[], &[fresh, ("Vary", "*")]).unwrap_err(),
        (Unstorable::VaryStar, "remove")
    );
    assert_eq!(
        with(&[], &[fresh, ("Set-Cookie", "a=b")]).unwrap_err(),
        (Unstorable::SetCookie, "leave")
    );
    let known = [("Authorization", "x")];
    assert_eq!(
        with(&known, &[fresh]).unwrap_err(),
        (Unstorable::Authorization, "leave")
    );
    let varied = with(&[("A", "2")], &[fresh, ("Vary", "A")]).unwrap().variant;
    assert_eq!(varied.nominated().collect::<Vec<_>>(), [("a", Some(&b"2"[..]))]);
}

#[test]
fn rfc9111_3_2_fields_of_the_connection_do_not_update() {
    let old = fields(&[
        ("A", "1"),
        ("B", "1"),
        ("Age", "5"),
        ("Date", "old"),
        ("Content-Range", "x"),
        ("C", "1"),
        ("C", "2"),
    ]);
    let new = fields(&[
        ("Connection", "A"),
        ("A", "2"),
        ("B", "2"),
        ("Content-Range", "y"),
        ("Content-Length", "9"),
        ("C", "3"),
    ]);
    let updated = updated_fields(&old, &new);
    assert_eq!(updated.get("a"), Some(&b"1"[..]));
    assert_eq!(updated.get("b"), Some(&b"2"[..]));
    assert_eq!(updated.get("content-range"), Some(&b"x"[..]));
    assert_eq!(updated.get_all("c").count(), 1);
    assert!(!updated.contains("content-length") && !updated.contains("date"));
    let Freshened::Store(accepted) = freshened(&get(&[]), &[STALE, ("ETag", "\"1\""), ("Date", "@-60")], &[STALE])
    else {
        panic!("not stored");
    };
    assert_eq!(
        accepted.fields.get("date"),
        Some(&b"Thu, 01 Jan 2026 00:00:00 GMT"[..]),
        "that of the 304's arrival"
    );
    assert!(!accepted.fields.contains("connection"));
}

#[test]
fn rfc9111_4_3_5_what_a_head_tells_about_the_stored_get() {
    let (meta, _) = stored(&get(&[]), &[STALE, ("ETag", "\"1\""), ("Last-Modified", "@-60")]);
    let effect = |status: u16, length: Option<u64>, lines: &[(&str, &str)]| {
        let mut head = response(status, &[]);
        head.fields = dated_fields(lines);
        head.declared_length = length;
        head_effect(&meta, Some(10), &head, NOW)
    };
    use HeadEffect::{Freshen, Invalidate, Nothing};
    assert_eq!(effect(200, None, &[]), Freshen);
    assert_eq!(
        effect(200, Some(10), &[("ETag", "\"1\""), ("Last-Modified", "@-60")]),
        Freshen
    );
    assert_eq!(effect(200, Some(11), &[]), Invalidate);
    assert_eq!(effect(200, None, &[("ETag", "\"2\"")]), Invalidate);
    assert_eq!(effect(200, None, &[("ETag", "W/\"1\"")]), Invalidate);
    assert_eq!(effect(200, None, &[("Last-Modified", "@-61")]), Invalidate);
    assert_eq!(effect(410, None, &[]), Invalidate);
    assert_eq!(effect(401, None, &[]), Nothing);
    assert_eq!(effect(503, None, &[]), Nothing);
}

#[test]
fn rfc9110_13_2_1_conditions_of_other_methods_are_not_ours() {
    let (meta, _) = stored(&get(&[]), &[("Cache-Control", "max-age=60"), ("ETag", "\"1\"")]);
    for (method, expected) in [
        ("GET", ClientCondition::NotModified),
        ("HEAD", ClientCondition::NotModified),
        ("PUT", ClientCondition::Send),
    ] {
        assert_eq!(
            evaluate(&request(method, "/", &[("If-None-Match", "*")]), &meta),
            expected,
            "{method}"
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_lists_of_tags_never_panic_and_end(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut rest = &bytes[..];
        let mut count = 0;
        while let Some((_, behind)) = next_tag(rest) {
            prop_assert!(behind.len() < rest.len());
            rest = behind;
            count += 1;
        }
        prop_assert!(count <= bytes.len());
    }

    #[test]
    fn a_tag_is_found_wherever_it_stands(before in "(\"[a-c,]{0,3}\", ?){0,3}", after in "(, ?W/\"[a-c]{0,3}\"){0,3}") {
        let (meta, _) = stored(&get(&[]), &[("Cache-Control", "max-age=60"), ("ETag", "\"xyz\"")]);
        let found = evaluate(&get(&[("If-None-Match", &format!("{before}\"xyz\"{after}"))]), &meta);
        prop_assert_eq!(found, ClientCondition::NotModified);
    }
}
