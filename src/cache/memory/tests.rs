use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use proptest::prelude::*;

use super::revision::REVISION_BATCH;
use super::*;
use crate::key::KeyOptions;
use crate::message::{Fields, Framing, RequestHead, Scheme, Version};
use crate::rfc9111::date::{Millis, Seconds};
use crate::rfc9111::freshness::{Lifetime, LifetimeSource};
use crate::rfc9111::stored::{Rare, Restrictions, StaleWindows, StoredMeta};
use crate::rfc9111::validation::Validators;
use crate::rfc9111::vary::VariantKey;

const ORDERS: [Eviction; 3] = [Eviction::S3Fifo, Eviction::Lru, Eviction::Lfu];
const MIB: u64 = 1 << 20;

/// A key of `/number`, with a request field in it where there is a value for it.
fn key_with(number: usize, header: Option<&str>) -> CacheKey {
    let mut fields = Fields::new();
    let mut options = KeyOptions::default();
    if let Some(value) = header {
        fields.push("X-Tenant", value);
        options.headers.push("x-tenant".into());
    }
    let request = RequestHead {
        method: Method::GET,
        scheme: Scheme::Https,
        version: Version::Http11,
        authority: "www.example.com".into(),
        target: format!("/{number}").into(),
        fields,
        framing: Framing::None,
        expects_continue: false,
        upgrade: false,
        keep_alive: true,
    };
    CacheKey::new(&request, &options)
}

fn key(number: usize) -> CacheKey {
    key_with(number, None)
}

/// All responses of a URI go.
fn invalidate(memory: &Memory, key: &CacheKey) {
    memory.revise_uri(key, |_| Fate::Go);
}

/// Received at `at` seconds, fresh for `fresh_for` more.
fn stored_at(at: u64, fresh_for: u64, body: usize, language: Option<&str>) -> Arc<Stored> {
    let (mut request, mut response) = (Fields::new(), Fields::new());
    if let Some(language) = language {
        request.push("Accept-Language", language);
        response.push("Vary", "Accept-Language");
    }
    let received = Timestamp::from_secs(at);
    let meta = StoredMeta {
        status: 200,
        received,
        initial_age: Millis::ZERO,
        lifetime: Lifetime {
            seconds: Seconds::new(fresh_for),
            source: LifetimeSource::MaxAge,
        },
        date: received,
        restrictions: Restrictions::default(),
        stale_while_revalidate: None,
        stale_if_error: None,
        validators: Validators::default(),
        variant: VariantKey::new(&request, &response).unwrap(),
        rare: Rare::default(),
    };
    Arc::new(Stored::new(meta, &response, Bytes::from(vec![b'x'; body])))
}

fn stored(body: usize) -> Arc<Stored> {
    stored_at(0, 3600, body, None)
}

fn share(route: &str, max_size: Option<u64>) -> RouteShare {
    RouteShare {
        route: route.into(),
        max_size,
        windows: StaleWindows::default(),
        keep: Duration::ZERO,
    }
}

/// What a route's share has in use.
fn used_by(memory: &Memory, route: &str) -> u64 {
    let state = memory.state.lock();
    let index = state.routes.get(route).map_or(0, |index| usize::from(*index));
    let share = state.rules[index].share;
    state.shares[usize::from(share)].used
}

/// Everything that must hold at any time.
fn check(memory: &Memory) {
    let state = memory.state.lock();
    let used: u64 = state.shares.iter().map(|share| share.used).sum();
    assert_eq!(used, memory.used());
    assert!(used <= memory.size, "{used} of {}", memory.size);
    for share in &state.shares {
        assert!(share.limit == 0 || share.used <= share.limit);
    }
    assert_eq!(state.keys, memory.len());
    assert!(state.of_uri.len() <= state.keys);
    let nodes = state.of_uri.iter().all(|(_, node)| state.nodes.place(*node).is_some());
    assert!(nodes, "the index of URIs knows what is not stored");
}

#[test]
fn what_is_kept_of_a_response_fits_the_size_class_of_160_bytes() {
    let counts = 2 * size_of::<usize>();
    assert!(counts + size_of::<Stored>() <= 160, "{}", size_of::<Stored>());
}

#[test]
fn a_response_is_found_until_it_is_replaced_or_invalidated() {
    for order in ORDERS {
        let memory = Memory::new(MIB, order);
        assert!(memory.get(&key(1)).is_none());
        let first = stored(100);
        memory.store("", &key(1), first.clone());
        assert!(
            memory
                .get(&key(1))
                .unwrap()
                .iter()
                .all(|stored| Arc::ptr_eq(stored, &first))
        );
        let second = stored(200);
        memory.store("", &key(1), second.clone());
        let found = memory.get(&key(1)).unwrap();
        assert_eq!(found.iter().len(), 1);
        assert!(found.iter().all(|stored| Arc::ptr_eq(stored, &second)));
        memory.replace(&key(1), &first, None);
        assert!(memory.get(&key(1)).is_some(), "no longer there, so nothing to replace");
        memory.replace(&key(1), &second, Some(first.clone()));
        assert!(
            memory
                .get(&key(1))
                .unwrap()
                .iter()
                .all(|stored| Arc::ptr_eq(stored, &first))
        );
        invalidate(&memory, &key(1));
        assert!(memory.get(&key(1)).is_none());
        assert_eq!((memory.used(), memory.len(), memory.evictions()), (0, 0, 0));
    }
}

#[test]
fn a_key_has_at_most_64_variants_and_the_oldest_goes() {
    let memory = Memory::new(MIB, Eviction::S3Fifo);
    for number in 0..=MAX_VARIANTS {
        memory.store("", &key(1), stored_at(0, 60, 10, Some(&format!("x-{number}"))));
    }
    let variants = memory.get(&key(1)).unwrap();
    let values: Vec<_> = variants
        .iter()
        .flat_map(|stored| stored.meta.variant.nominated())
        .collect();
    assert_eq!(values.len(), MAX_VARIANTS);
    let named = |value: &str| {
        values
            .iter()
            .any(|(_, other)| other.is_some_and(|other| other.starts_with(value.as_bytes())))
    };
    assert!(named("x-64") && named("x-1") && !values.iter().any(|(_, other)| *other == Some(b"x-0".as_slice())));
    check(&memory);
}

#[test]
fn variants_that_do_not_fit_together_make_room_for_the_newest() {
    let memory = Memory::new(MIB, Eviction::Lru);
    for language in ["de", "en", "fr"] {
        memory.store("", &key(1), stored_at(0, 60, 400 << 10, Some(language)));
        check(&memory);
    }
    assert_eq!(memory.get(&key(1)).unwrap().iter().len(), 2);
}

#[test]
fn what_is_too_large_is_refused_and_drives_nothing_out() {
    for order in ORDERS {
        let memory = Memory::new(MIB, order);
        for number in 0..10 {
            memory.store("", &key(number), stored(1000));
        }
        memory.store("", &key(99), stored(MIB as usize));
        assert!(memory.get(&key(99)).is_none());
        assert_eq!((memory.len(), memory.evictions()), (10, 0));
        // What it would have replaced is out of date.
        memory.store("", &key(3), stored(MIB as usize));
        assert!(memory.get(&key(3)).is_none());
        assert_eq!(memory.len(), 9);
    }
}

#[test]
fn the_size_is_for_all_keys_together_wherever_they_fall() {
    const BODY: usize = 8 << 20;
    for order in ORDERS {
        let memory = Memory::new(64 * MIB, order);
        for number in 0..1000 {
            memory.store("", &key(number), stored(1000));
        }
        for number in 1000..1100 {
            memory.store("", &key(number), stored(BODY));
            assert!(memory.get(&key(number)).is_some(), "{order:?}: {number}");
            check(&memory);
        }
    }
}

#[test]
fn lru_lets_go_of_what_was_not_used_for_longest() {
    let one = Memory::new(MIB, Eviction::Lru);
    one.store("", &key(100), stored(1000));
    let memory = Memory::new(one.used() * 10, Eviction::Lru);
    for number in 100..110 {
        memory.store("", &key(number), stored(1000));
    }
    assert!(memory.get(&key(100)).is_some());
    for number in 110..115 {
        memory.store("", &key(number), stored(1000));
    }
    let left: Vec<usize> = (100..115)
        .filter(|number| memory.get(&key(*number)).is_some())
        .collect();
    assert!(left.contains(&100), "{left:?}");
    assert!(!left.contains(&101) && !left.contains(&102), "{left:?}");
    assert!((110..115).all(|number| left.contains(&number)), "{left:?}");
    assert_eq!(memory.evictions(), 5);
}

#[test]
fn s3_fifo_and_lfu_keep_what_is_popular_through_a_scan() {
    for (order, kept) in [(Eviction::S3Fifo, 50), (Eviction::Lru, 0), (Eviction::Lfu, 50)] {
        let one = Memory::new(MIB, order);
        one.store("", &key(1000), stored(1000));
        let memory = Memory::new(one.used() * 100, order);
        for _ in 0..20 {
            for number in 1000..1050 {
                if memory.get(&key(number)).is_none() {
                    memory.store("", &key(number), stored(1000));
                }
            }
        }
        for number in 2000..3000 {
            memory.store("", &key(number), stored(1000));
        }
        let found = (1000..1050)
            .filter(|number| memory.get(&key(*number)).is_some())
            .count();
        assert_eq!(found, kept, "{order:?}");
        check(&memory);
    }
}

#[test]
fn lfu_forgets_what_was_popular_long_ago() {
    let one = Memory::new(MIB, Eviction::Lfu);
    one.store("", &key(1000), stored(1000));
    let memory = Memory::new(one.used() * 100, Eviction::Lfu);
    let use_once = |number| {
        if memory.get(&key(number)).is_none() {
            memory.store("", &key(number), stored(1000));
        }
    };
    for _ in 0..20 {
        (1000..1100).for_each(use_once);
    }
    for round in 0..200 {
        (2000..2080).for_each(use_once);
        (0..50).for_each(|number| use_once(10_000 + round * 50 + number));
    }
    let found = (2000..2080)
        .filter(|number| memory.get(&key(*number)).is_some())
        .count();
    assert!(found > 60, "{found} of what is popular now");
}

#[test]
fn invalidation_takes_all_keys_of_the_uri_and_no_other() {
    let memory = Memory::new(8 * MIB, Eviction::S3Fifo);
    let tenants: Vec<String> = (0..3 * REVISION_BATCH)
        .map(|number| format!("tenant{number}"))
        .collect();
    for tenant in &tenants {
        memory.store("", &key_with(1, Some(tenant)), stored(10));
        memory.store("", &key_with(11, Some(tenant)), stored(10));
    }
    memory.store("", &key(1), stored(10));
    invalidate(&memory, &key(1));
    assert!(memory.get(&key(1)).is_none());
    assert!(
        tenants
            .iter()
            .all(|tenant| memory.get(&key_with(1, Some(tenant))).is_none())
    );
    assert!(
        tenants
            .iter()
            .all(|tenant| memory.get(&key_with(11, Some(tenant))).is_some())
    );
    assert_eq!(memory.len(), tenants.len());
    check(&memory);
}

#[test]
fn the_index_of_uris_has_no_more_than_what_is_stored() {
    for order in ORDERS {
        let memory = Memory::new(100_000, order);
        for number in 0..5000 {
            memory.store("", &key_with(number, Some("a")), stored(100));
            memory.store("", &key_with(7, Some(&number.to_string())), stored(100));
        }
        check(&memory);
        let known = memory.state.lock().of_uri.len();
        assert_eq!(known, memory.len());
        assert!(known < 1000);
    }
}

#[test]
fn a_route_takes_no_more_than_its_share() {
    for order in ORDERS {
        let memory = Memory::new(MIB, order);
        memory.set_routes([share("agents", Some(100_000)), share("site", None)]);
        for number in 0..20 {
            memory.store("site", &key(number), stored(1000));
        }
        for number in 100..1000 {
            memory.store("agents", &key(number), stored(1000));
        }
        check(&memory);
        assert!((90_000..=100_000).contains(&used_by(&memory, "agents")));
        assert!(
            (0..20).all(|number| memory.get(&key(number)).is_some()),
            "{order:?}: others pay for it"
        );
        memory.store("agents", &key(2000), stored(200_000));
        assert!(memory.get(&key(2000)).is_none());
    }
}

#[test]
fn nobody_is_driven_out_of_what_is_due_to_them() {
    for order in ORDERS {
        let memory = Memory::new(MIB, order);
        memory.set_routes([share("agents", Some(MIB / 2)), share("site", None)]);
        // What the others do not use is lent.
        for number in 0..2000 {
            memory.store("site", &key(number), stored(1000));
        }
        assert!(memory.used() > MIB * 9 / 10);
        for number in 10_000..10_100 {
            memory.store("agents", &key(number), stored(1000));
        }
        assert!(
            (10_000..10_100).all(|number| memory.get(&key(number)).is_some()),
            "{order:?}"
        );
        for number in 20_000..22_000 {
            memory.store("agents", &key(number), stored(1000));
        }
        check(&memory);
        assert!(
            used_by(&memory, "site") > MIB * 4 / 10,
            "{order:?}: {}",
            used_by(&memory, "site")
        );
        for number in 30_000..32_000 {
            memory.store("site", &key(number), stored(1000));
        }
        check(&memory);
        assert!(
            used_by(&memory, "agents") > MIB * 4 / 10,
            "{order:?}: {}",
            used_by(&memory, "agents")
        );
    }
}

#[test]
fn shares_follow_the_configuration() {
    let memory = Memory::new(MIB, Eviction::S3Fifo);
    memory.set_routes([share("a", Some(200_000)), share("b", Some(200_000))]);
    for number in 0..100 {
        memory.store("a", &key(number), stored(1000));
        memory.store("b", &key(1000 + number), stored(1000));
    }
    let before = used_by(&memory, "a");
    memory.set_routes([share("b", Some(50_000)), share("a", Some(300_000))]);
    assert_eq!(used_by(&memory, "a"), before);
    assert!(used_by(&memory, "b") <= 50_000);
    // Without a share of its own: what is there is still served, but goes first.
    memory.set_routes([share("a", None)]);
    assert!(memory.get(&key(50)).is_some());
    for number in 2000..2700 {
        memory.store("a", &key(number), stored(1000));
    }
    check(&memory);
    assert!((2000..2700).all(|number| memory.get(&key(number)).is_some()));
    assert!((0..100).any(|number| memory.get(&key(number)).is_none()));
    // Two routes never have the same share, though one of them has nothing in it.
    memory.set_routes([share("d", Some(100_000))]);
    memory.set_routes([share("e", Some(50_000)), share("d", Some(100_000))]);
    memory.store("e", &key(5000), stored(1000));
    assert_eq!(used_by(&memory, "d"), 0);
    // A key that another route stores counts to that one from now on.
    memory.set_routes([share("a", None), share("c", Some(100_000))]);
    memory.store("c", &key(2600), stored(1000));
    assert!(used_by(&memory, "c") > 1000);
    check(&memory);
}

#[test]
fn what_is_of_no_use_any_more_goes_before_what_is() {
    for order in ORDERS {
        let one = Memory::new(MIB, order);
        one.store("", &key(100), stored(1000));
        let memory = Memory::new(one.used() * 100, order);
        for number in 100..200 {
            let fresh_for = if number % 2 == 0 { 10 } else { 1000 };
            memory.store("", &key(number), stored_at(0, fresh_for, 1000, None));
        }
        // The most popular ones are over.
        for number in (100..200).step_by(2) {
            for _ in 0..10 {
                memory.get(&key(number));
            }
        }
        for number in 200..250 {
            memory.store("", &key(number), stored_at(11, 1000, 1000, None));
        }
        let useful = (101..200).step_by(2).chain(200..250);
        assert_eq!(
            useful.filter(|number| memory.get(&key(*number)).is_none()).count(),
            0,
            "{order:?}"
        );
        assert_eq!(memory.evictions(), 0);
    }
}

#[test]
fn what_is_of_no_use_stays_while_there_is_room() {
    let memory = Memory::new(MIB, Eviction::S3Fifo);
    memory.store("", &key(1), stored_at(0, 10, 1000, None));
    for number in 2..100 {
        memory.store("", &key(number), stored_at(5000, 10, 1000, None));
    }
    assert!(
        memory.get(&key(1)).is_some(),
        "a client may still ask for it with max-stale"
    );
}

#[test]
fn many_stores_and_invalidations_at_once_leave_nothing_behind() {
    for order in ORDERS {
        let memory = Memory::new(300_000, order);
        memory.set_routes([share("a", Some(50_000))]);
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let memory = &memory;
                scope.spawn(move || {
                    for step in 0..3000 {
                        let number = (step * 7 + thread * 13) % 97;
                        let route = if number % 3 == 0 { "a" } else { "" };
                        let tenant = (step % 5).to_string();
                        let key = key_with(number, Some(&tenant));
                        match step % 11 {
                            0 => invalidate(memory, &self::key(number)),
                            1..4 => drop(memory.get(&key)),
                            4 => {
                                let old = memory.get(&key).and_then(|found| found.iter().next().cloned());
                                if let Some(old) = old {
                                    memory.replace(&key, &old, Some(stored(step % 2000)));
                                }
                            }
                            _ => memory.store(route, &key, stored(step % 5000)),
                        }
                    }
                });
            }
        });
        check(&memory);
        for number in 0..97 {
            invalidate(&memory, &key(number));
        }
        check(&memory);
        assert_eq!((memory.used(), memory.len()), (0, 0), "{order:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Get(usize),
    Store {
        key: usize,
        route: usize,
        language: usize,
        body: usize,
        fresh_for: u64,
    },
    Replace {
        key: usize,
        body: Option<usize>,
    },
    Invalidate(usize),
    Routes(Option<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..24_usize;
    prop_oneof![
        4 => key.clone().prop_map(Step::Get),
        8 => (key.clone(), 0..3_usize, 0..4_usize, 0..60_000_usize, 0..50_u64).prop_map(
            |(key, route, language, body, fresh_for)| Step::Store { key, route, language, body, fresh_for }),
        2 => (key.clone(), proptest::option::of(0..60_000_usize)).prop_map(
            |(key, body)| Step::Replace { key, body }),
        1 => key.prop_map(Step::Invalidate),
        1 => proptest::option::of(20_000..150_000_u64).prop_map(Step::Routes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a map that forgets nothing: what is found is what was stored last, and the bounds hold after each step.
    #[test]
    fn nothing_is_found_that_was_not_stored_and_bounds_hold(
        order in proptest::sample::select(&ORDERS[..]),
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        const ROUTES: [&str; 3] = ["", "a", "b"];
        const LANGUAGES: [Option<&str>; 4] = [None, Some("de"), Some("en"), Some("fr")];
        let key_of = |number: usize| match number % 3 {
            0 => key(number / 3),
            tenant => key_with(number / 3, Some(["x", "y"][tenant - 1])),
        };
        let memory = Memory::new(300_000, order);
        let mut model: HashMap<usize, Vec<Arc<Stored>>> = HashMap::new();
        for (now, step) in steps.into_iter().enumerate() {
            match step {
                Step::Get(number) => {
                    let known = model.get(&number).map_or(&[][..], Vec::as_slice);
                    if let Some(found) = memory.get(&key_of(number)) {
                        for stored in found.iter() {
                            prop_assert!(known.iter().any(|known| Arc::ptr_eq(known, stored)));
                        }
                    }
                }
                Step::Store { key, route, language, body, fresh_for } => {
                    let new = stored_at(now as u64, fresh_for, body, LANGUAGES[language]);
                    let known = model.entry(key).or_default();
                    known.retain(|known| known.meta.variant != new.meta.variant);
                    known.push(new.clone());
                    memory.store(ROUTES[route], &key_of(key), new);
                }
                Step::Replace { key, body } => {
                    let known = model.entry(key).or_default();
                    let Some(old) = known.first().cloned() else { continue };
                    let new = body.map(|body| stored_at(now as u64, 10, body, None));
                    memory.replace(&key_of(key), &old, new.clone());
                    known.retain(|known| !Arc::ptr_eq(known, &old));
                    if let Some(new) = new {
                        known.push(new);
                    }
                }
                Step::Invalidate(number) => {
                    invalidate(&memory, &key(number / 3));
                    for tenant in 0..3 {
                        model.remove(&(number / 3 * 3 + tenant));
                        prop_assert!(memory.get(&key_of(number / 3 * 3 + tenant)).is_none());
                    }
                }
                Step::Routes(max_size) => {
                    memory.set_routes([share("a", max_size), share("b", Some(40_000))]);
                }
            }
            check(&memory);
        }
        for number in 0..24 {
            invalidate(&memory, &key(number / 3));
        }
        prop_assert_eq!((memory.used(), memory.len()), (0, 0));
    }
}
