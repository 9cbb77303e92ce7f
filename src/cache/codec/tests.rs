use proptest::prelude::*;

use super::*;
use crate::message::Fields;

const MAX_BODY: u64 = 1 << 20;

fn stored(lines: &[(&str, &str)], vary: &[(&str, &str)], body: &[u8]) -> Stored {
    let (mut request, mut fields) = (Fields::new(), Fields::new());
    for (name, value) in vary {
        request.push(name, value);
        fields.push("Vary", *name);
    }
    for (name, value) in lines {
        fields.push(name, value);
    }
    let received = Timestamp::from_secs(1_767_225_600);
    Stored {
        meta: StoredMeta {
            status: 200,
            received,
            initial_age: Duration::from_secs(7).into(),
            lifetime: Lifetime {
                seconds: Seconds::new(60),
                source: LifetimeSource::SMaxage,
            },
            date: received,
            restrictions: Restrictions {
                no_cache: true,
                stale: StaleUse::AsGranted,
                immutable: true,
            },
            stale_while_revalidate: Some(Seconds::new(5)),
            stale_if_error: None,
            validators: Validators::of(&fields, received),
            variant: VariantKey::new(&request, &fields).unwrap(),
            rare: Rare::default(),
        },
        fields: (&fields).into(),
        body: Bytes::copy_from_slice(body).into(),
    }
}

fn written(key: &[u8], stored: &Stored) -> Bytes {
    let age = Duration::from_secs(9);
    encode(key, stored, Mark::default(), &compress(stored), age, 1)
        .unwrap()
        .into()
}

fn read_back(bytes: &Bytes, key: &[u8], stored_for: u64, now: Timestamp) -> Stored {
    match decode(bytes, key, MAX_BODY).unwrap() {
        Value::Response(decoded) => decoded.into_stored(Duration::from_secs(stored_for), now).unwrap(),
        Value::Index(index) => panic!("{index:?}"),
    }
}

#[test]
fn a_response_comes_back_as_old_as_it_is_by_whatever_clock() {
    let lines = [
        ("Content-Type", "text/html"),
        ("ETag", "W/\"a\""),
        ("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT"),
    ];
    for (vary, body) in [
        (&[][..], &b""[..]),
        (
            &[("Accept-Language", "de;q=0.5, en"), ("Accept-Encoding", "gzip, br")],
            b"hello",
        ),
        (&[("X-Empty", "")], &[7; 100_000]),
    ] {
        let before = stored(&lines, vary, body);
        let bytes = written(b"key", &before);
        assert!(bytes.len() < 2000, "{}", bytes.len());
        // An hour behind the clock of the one that wrote it.
        let now = Timestamp::from_secs(before.meta.received.as_secs() - 3600);
        let after = read_back(&bytes, b"key", 30, now);
        assert_eq!(*after.body, *before.body);
        assert_eq!(after.fields.unpack(), before.fields.unpack());
        let expected = StoredMeta {
            received: now,
            initial_age: Duration::from_secs(39).into(),
            ..before.meta.clone()
        };
        assert_eq!(after.meta, expected);
        assert_eq!(after.meta.age(now), Duration::from_secs(39));
        assert_eq!(after.meta.variant.heap_size(), before.meta.variant.heap_size());
    }
}

#[test]
fn bodies_are_compressed_where_it_pays() {
    let mut random = fastrand::Rng::with_seed(7);
    let dense: Vec<u8> = (0..20_000).map(|_| random.u8(..)).collect();
    for (lines, body, coding) in [
        (&[][..], &[b'a'; 1024][..], PLAIN),
        (&[], &[b'a'; 1025], ZSTD),
        (&[], &dense, PLAIN),
        (&[("Content-Encoding", "br")], &[b'a'; 5000], PLAIN),
        (&[("Content-Type", "Image/PNG")], &[b'a'; 5000], PLAIN),
        (&[("Content-Type", "image/svg+xml")], &[b'a'; 5000], ZSTD),
    ] {
        assert_eq!(
            compress(&stored(lines, &[], body)).coding,
            coding,
            "{lines:?} {}",
            body.len()
        );
    }
}

#[test]
fn what_is_wrong_is_said() {
    let before = stored(&[("Content-Type", "text/html")], &[("Accept", "a")], &[b'x'; 3000]);
    let good = written(b"key", &before);
    let fault = |bytes: Vec<u8>| decode(&bytes.into(), b"key", MAX_BODY).err();
    let mut newer = good.to_vec();
    newer[3] += 1;
    assert_eq!(fault(newer), Some(RedisFault::ValueVersion));
    assert_eq!(decode(&good, b"kez", MAX_BODY).err(), Some(RedisFault::ValueKey));
    assert_eq!(decode(&good, b"key", 2999).err(), Some(RedisFault::ValueBroken));
    for at in 4..good.len() {
        let mut flipped = good.to_vec();
        flipped[at] ^= 0x10;
        assert_eq!(fault(flipped), Some(RedisFault::ValueBroken), "{at}");
        assert_eq!(fault(good[..at].to_vec()), Some(RedisFault::ValueBroken), "{at}");
    }
    assert!(matches!(fault(Vec::new()), Some(RedisFault::ValueBroken)));
}

#[test]
fn parts_are_not_written() {
    let mut part = stored(&[], &[], b"x");
    part.meta.set_partial(Some(crate::rfc9111::range::Partial {
        held: crate::rfc9111::range::ByteRange::new(0, 0).unwrap(),
        complete: Some(2),
        exact: true,
    }));
    assert!(encode(b"key", &part, Mark::default(), &compress(&part), Duration::ZERO, 0).is_none());
}

#[test]
fn an_index_comes_back() {
    let index = Index {
        nonce: 42,
        lists: vec![vec!["accept".to_owned(), "x-b".to_owned()], vec![]],
    };
    let bytes = index.encode(b"key").unwrap().into();
    match decode(&bytes, b"key", 0).unwrap() {
        Value::Index(back) => assert_eq!(back, index),
        Value::Response(_) => panic!("a response"),
    }
    assert_eq!(bytes[SUMMED], INDEX);
}

proptest! {
    /// With a checksum that is right: all else has to be checked, too.
    #[test]
    fn no_bytes_are_too_much(
        rest in proptest::collection::vec(any::<u8>(), 0..300),
        kind in 0..4_u8,
        coding in 0..3_u8,
    ) {
        let mut bytes = head(kind, coding, 0, Duration::ZERO, 0);
        put(&mut bytes, b"key").unwrap();
        bytes.extend_from_slice(&rest);
        if let Ok(Value::Response(decoded)) = decode(&sealed(bytes).into(), b"key", MAX_BODY) {
            let _ = decoded.into_stored(Duration::MAX, Timestamp::default());
        }
    }

    #[test]
    fn no_change_is_too_much(at in 24..400_usize, by in 1..255_u8, cut in 0..400_usize) {
        let before = stored(&[("Content-Type", "text/html"), ("X", "y")], &[("Accept", "a"), ("Z", "q")], &[b'x'; 3000]);
        let mut bytes = written(b"key", &before).to_vec();
        let at = at % bytes.len();
        bytes[at] = bytes[at].wrapping_add(by);
        bytes.truncate(bytes.len().saturating_sub(cut / 2));
        if bytes.len() > SUMMED
            && let Ok(Value::Response(decoded)) = decode(&sealed(bytes).into(), b"key", MAX_BODY)
            && let Ok(stored) = decoded.into_stored(Duration::ZERO, Timestamp::default())
        {
            let _ = stored.fields.unpack();
            prop_assert!(stored.body.len() as u64 <= MAX_BODY);
        }
    }
}
