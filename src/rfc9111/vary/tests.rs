use proptest::prelude::*;

use super::*;
use crate::message::fields;
use crate::rfc9111::tests::{NOW, Shelf, get, response};

fn normal(name: &str, lines: &[&str]) -> Option<String> {
    let lines: Vec<(&str, &str)> = lines.iter().map(|line| (name, *line)).collect();
    normalise(name, &fields(&lines)).map(|value| String::from_utf8_lossy(&value).into_owned())
}

#[test]
fn rfc9111_4_1_normal_forms() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("foo", &["1, 2"], "1,2"),
        ("foo", &["1", "2"], "1,2"),
        ("foo", &[" 1 ,\t2 "], "1,2"),
        ("foo", &["a  b , c"], "a  b,c"),
        ("foo", &["\"a , b\" , c"], "\"a , b\",c"),
        ("foo", &["\"a \\\" , b\" , c"], "\"a \\\" , b\",c"),
        ("foo", &["2,1"], "2,1"),
        ("foo", &["A"], "A"),
        ("foo", &[""], ""),
        ("accept-encoding", &["gzip, deflate, br"], "br, deflate, gzip"),
        ("accept-encoding", &["br;q=1.0, GZIP;q=0.80, x-gzip;q=0.8"], "br, gzip"),
        ("accept-encoding", &["gzip;Q=1", "br"], "br, gzip"),
        ("accept-encoding", &["gzip; q=0.5 ,"], "gzip"),
        ("accept-encoding", &["gzip, junk1, br;q=0"], "gzip"),
        ("accept-encoding", &["gzip, gzip;q=0, x-compress"], "compress"),
        ("accept-encoding", &["dcz, zstd, dcb"], "dcb, dcz, zstd"),
        ("accept-encoding", &["*"], "br, deflate, gzip, zstd"),
        (
            "accept-encoding",
            &["*;q=0.5, zstd;q=0, compress"],
            "br, compress, deflate, gzip",
        ),
        ("accept-encoding", &["*;q=0"], "identity"),
        ("accept-encoding", &["gzip;q=2"], "identity"),
        ("accept-encoding", &["gzip br"], "identity"),
        ("accept-encoding", &["identity;q=0, junk"], "identity"),
        ("accept-encoding", &[""], "identity"),
        ("accept-language", &["eN , De;q=0"], "de;q=0.000,en"),
        ("accept-language", &["*;q=0.1,en"], "*;q=0.100,en"),
        ("cookie", &["a=b", "c=d"], "a=b; c=d"),
        ("cookie", &["a=b, c"], "a=b, c"),
        ("authorization", &["Basic  a, b"], "Basic  a, b"),
        ("authorization", &["a", "b"], "a\nb"),
    ];
    for (name, lines, expected) in cases {
        assert_eq!(normal(name, lines).as_deref(), Some(*expected), "{name} {lines:?}");
    }
    assert_eq!(normal("foo", &[]), None);
}

#[test]
fn rfc9110_12_5_5_what_vary_nominates() {
    let names = |lines: &[&str]| nominates(&fields(&lines.iter().map(|line| ("Vary", *line)).collect::<Vec<_>>()));
    assert_eq!(names(&[]), Nominates::Nothing);
    assert_eq!(names(&["", " , "]), Nominates::Nothing);
    assert_eq!(
        names(&["Foo, bar", "FOO"]),
        Nominates::Fields(vec!["bar".to_owned(), "foo".to_owned()])
    );
    assert_eq!(names(&["Foo", "*"]), Nominates::Everything);
    assert_eq!(names(&["Foo bar"]), Nominates::Everything);
    let many: Vec<String> = (0..=MAX_NOMINATED).map(|at| format!("f{at}")).collect();
    assert_eq!(names(&[&many.join(",")]), Nominates::Everything);
}

#[test]
fn rfc9111_4_1_the_most_recent_with_vary_is_chosen() {
    let chosen = |answers: &[(u64, &[(&str, &str)])], wanted: &[(&str, &str)]| {
        let mut shelf = Shelf::new();
        for (at, (later, lines)) in answers.iter().enumerate() {
            let time = NOW.plus(std::time::Duration::from_secs(*later));
            let head = response(200, &[lines, &[("Cache-Control", "max-age=60")][..]].concat());
            let mut one = Shelf::new();
            one.store(
                &get(&[("Foo", "1"), ("Bar", "1"), ("Accept-Language", "en, de")]),
                &head,
                time,
            )
            .unwrap();
            let (mut meta, _) = one.stored.remove(0);
            meta.date = time;
            shelf.stored.push((meta, fields(&[("At", &at.to_string())])));
        }
        let (_, found) = shelf.chosen(&get(wanted))?;
        std::str::from_utf8(found.get("at")?).ok()?.parse::<usize>().ok()
    };
    let foo: &[(&str, &str)] = &[("Vary", "Foo")];
    let bar: &[(&str, &str)] = &[("Vary", "Bar")];
    let german: &[(&str, &str)] = &[("Vary", "Accept-Language"), ("Content-Language", "de")];
    let both = [("Foo", "1"), ("Bar", "1")];
    assert_eq!(chosen(&[(0, foo), (5, bar)], &both), Some(1));
    assert_eq!(chosen(&[(5, foo), (0, bar)], &both), Some(0));
    assert_eq!(chosen(&[(5, &[]), (0, bar)], &both), Some(1));
    assert_eq!(chosen(&[(5, &[]), (0, bar)], &[("Bar", "2")]), Some(0));
    assert_eq!(
        chosen(&[(0, foo), (5, german)], &[("Foo", "1"), ("Accept-Language", "de")]),
        Some(0)
    );
    assert_eq!(chosen(&[(0, foo)], &[]), None);
}

#[test]
fn variants_replace_each_other_only_where_their_values_are_the_same() {
    let key = |request: &[(&str, &str)], vary: &str| VariantKey::new(&fields(request), &fields(&[("Vary", vary)]));
    assert_eq!(key(&[("A", "1, 2")], "A"), key(&[("a", "1"), ("a", "2")], "a, A"));
    assert_ne!(key(&[("A", "1")], "A"), key(&[("A", "2")], "A"));
    assert_ne!(key(&[("A", "1")], "A"), key(&[("A", "1")], "A, B"));
    assert_ne!(key(&[("A", "")], "A"), key(&[], "A"));
    assert_eq!(key(&[], "*"), None);
}

proptest! {
    #[test]
    fn normal_forms_are_their_own(value in "[a-c\", ;=.q01\\\\]{0,24}", at in 0usize..4) {
        let name = ["foo", "accept-encoding", "accept-language", "cookie"][at];
        let once = normal(name, &[&value]).unwrap();
        prop_assert_eq!(normal(name, &[&once]), Some(once));
    }

    #[test]
    fn a_request_always_matches_itself(value in "[a-c\", ;=.q01\\\\]{0,24}", more in proptest::option::of("[ab, ]{0,4}")) {
        let mut lines = vec![("Foo", value.as_str()), ("Accept-Encoding", value.as_str())];
        if let Some(more) = &more {
            lines.push(("Foo", more));
        }
        let request = fields(&lines);
        let key = VariantKey::new(&request, &fields(&[("Vary", "Foo, Accept-Encoding")])).unwrap();
        prop_assert_eq!(key.fits(&request), Some(Fit::Exact));
    }

    #[test]
    fn different_plain_values_never_match(one in "[a-c]{0,3}", other in "[a-c]{0,3}", at in 0usize..4) {
        let name = ["Foo", "Accept-Charset", "Accept-Language", "Authorization"][at];
        let key = VariantKey::new(&fields(&[(name, &one)]), &fields(&[("Vary", name)])).unwrap();
        prop_assert_eq!(key.fits(&fields(&[(name, &other)])).is_some(), one == other);
    }
}
