use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;

use super::super::state::{Next, Snapshot};
use super::*;

fn window(rate: f64, errors: f64, hits: Option<f64>, p95: f64) -> Value {
    json!({
        "seconds": 60.0, "requests": 100, "requests_per_second": rate, "error_ratio": errors,
        "latency": { "p50": p95 / 10.0, "p90": p95 / 2.0, "p95": p95, "p99": p95 * 2.0 },
        "hit_ratio": { "all": hits, "l1": hits, "l2": 0.0, "stale": 0.0, "collapsed": 0.0 },
    })
}

fn stats(requests: u64) -> Value {
    let route = |name: &str, rate, errors, hits, p95| {
        let window = window(rate, errors, hits, p95);
        json!({ "route": name, "streams": 2, "last_10s": window, "last_1m": window })
    };
    let server = |address: &str, usable: bool, health: &str, drained: bool| {
        json!({ "server": address, "usable": usable, "health": health, "ejected": false, "drained": drained,
            "open": 3, "attempts": 1000, "failures": 7 })
    };
    json!({
        "version": "0.1.0", "phase": "ready", "uptime_seconds": 93_784.0, "in_flight": 12, "streams": 3,
        "connections": { "a": 40, "b": 2 },
        "since_start": { "requests": requests },
        "last_10s": window(1234.0, 0.0, Some(0.9), 0.02),
        "last_1m": window(1200.0, 0.02, Some(0.931), 0.02),
        "routes": [
            route("api", 900.0, 0.0, Some(0.95), 0.004),
            route("chat", 3.5, 0.05, None, 1.25),
            route("site\u{1b}[2J", 330.0, 0.0, Some(0.5), 0.02),
        ],
        "memory": { "resident_bytes": 104_857_600, "cache_bytes": 52_428_800, "cache_limit_bytes": 268_435_456, "stored_responses": 4321 },
        "redis": { "up": false },
        "upstreams": [
            { "name": "app", "circuit": "half-open", "p95_seconds": 0.03, "servers": [
                server("127.0.0.1:3001", true, "healthy", false),
                server("127.0.0.1:3002", false, "unhealthy", false),
                server("127.0.0.1:3003", false, "healthy", true),
            ] },
        ],
        "limits": [{ "limit": "default", "most_refused": [{ "key": "192.0.2.7", "requests": 41, "at_least": 41 }] }],
    })
}

fn state() -> State {
    let mut state = State::new("http://127.0.0.1:9191".to_owned());
    let begun = Instant::now();
    for second in 0..30_u64 {
        state.take(Snapshot {
            at: begun + Duration::from_secs(second),
            stats: stats(second * second * 10),
            hottest: json!({ "top": [{ "url": "http://example.org/a", "requests": 512 }, { "url": "http://example.org/b", "requests": 20 }] }),
        });
    }
    state
}

fn picture(state: &State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width.max(1)));
    rows.map(|row| {
        row.iter()
            .map(|cell| cell.symbol())
            .collect::<String>()
            .trim_end()
            .to_owned()
    })
    .collect()
}

fn press(state: &mut State, code: KeyCode) -> Next {
    state.key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[track_caller]
fn position(lines: &[String], text: &str) -> usize {
    let found = lines.iter().position(|line| line.contains(text));
    found.unwrap_or_else(|| panic!("no {text:?} in\n{}", lines.join("\n")))
}

#[test]
fn a_screen_of_80_by_24_has_all_that_matters() {
    let lines = picture(&state(), 80, 24);
    for expected in [
        "forebay 0.1.0 ready  up 1d 2h  12 in flight  3 streams  42 connections",
        "requests 1234/s  1200/s in a minute   errors 2.0 %",
        "hits     93.1 %  l1 93.1 %  l2 0.0 %  stale 0.0 %  collapsed 0.0 %",
        "latency  p50 2.0 ms  p90 10.0 ms  p95 20.0 ms  p99 40.0 ms",
        "cache    50.0 MiB of 256.0 MiB, 4321 keys   memory 100.0 MiB   redis DOWN",
        "requests per second, at most 570",
        "1 Overview",
        "routes, busiest first",
        "upstreams",
        "app  127.0.0.1:3001",
        "asked for most",
        "http://example.org/a",
        "q quit  tab view",
    ] {
        position(&lines, expected);
    }
    let api = &lines[position(&lines, "api")];
    assert_eq!(
        api.split_whitespace().collect::<Vec<_>>().join(" "),
        "api 900 0.0 % 95.0 % 400 µs 4.0 ms 8.0 ms 2"
    );
    // What others have named does nothing to the terminal.
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')));
    position(&lines, "site?[2J");
}

#[test]
fn routes_are_sorted_as_asked_for() {
    let mut state = state();
    press(&mut state, KeyCode::Char('2'));
    let mut orders = Vec::new();
    for _ in 0..5 {
        let lines = picture(&state, 100, 30);
        let mut order = ["api", "chat", "site"].map(|name| (position(&lines, name), name));
        order.sort_unstable();
        orders.push(order.map(|(_, name)| name).join(" "));
        press(&mut state, KeyCode::Char('s'));
    }
    let expected = [
        "api site chat",
        "chat site api",
        "chat api site",
        "site api chat",
        "api chat site",
    ];
    assert_eq!(orders, expected);
}

#[test]
fn keys_turn_pages_scroll_pause_and_quit() {
    let mut state = state();
    for (key, tab) in [
        (KeyCode::Tab, Tab::Routes),
        (KeyCode::Right, Tab::Upstreams),
        (KeyCode::BackTab, Tab::Routes),
        (KeyCode::Left, Tab::Overview),
        (KeyCode::Left, Tab::Refused),
        (KeyCode::Char('3'), Tab::Upstreams),
    ] {
        assert_eq!(press(&mut state, key), Next::GoOn);
        assert_eq!(state.tab, tab);
    }
    let lines = picture(&state, 80, 24);
    let states = ["3001", "3002", "3003"].map(|port| {
        let line = &lines[position(&lines, port)];
        line.split_whitespace().nth(2).unwrap().to_owned()
    });
    assert_eq!(states, ["healthy", "unhealthy", "drained"]);
    let whole = &lines[position(&lines, "3001")];
    assert_eq!(
        whole.split_whitespace().collect::<Vec<_>>().join(" "),
        "app 127.0.0.1:3001 healthy half-open 3 1000 7 30.0 ms"
    );
    for (circuit, shown) in [(json!("open"), "OPEN"), (json!("closed"), "closed"), (Value::Null, "-")] {
        let mut other = stats(1);
        other["upstreams"][0]["circuit"] = circuit;
        state.take(Snapshot {
            at: Instant::now(),
            stats: other,
            hottest: json!({}),
        });
        let lines = picture(&state, 80, 24);
        let line = &lines[position(&lines, "3001")];
        assert_eq!(line.split_whitespace().nth(3), Some(shown), "{line}");
    }
    press(&mut state, KeyCode::Down);
    let lines = picture(&state, 80, 24);
    position(&lines, "from 2 of 3");
    assert!(lines.iter().all(|line| !line.contains("3001")));
    press(&mut state, KeyCode::End);
    press(&mut state, KeyCode::Down);
    assert_eq!(state.skipped, 2, "the last row stays");
    press(&mut state, KeyCode::Char('5'));
    position(&picture(&state, 80, 24), "192.0.2.7");

    press(&mut state, KeyCode::Char('p'));
    position(&picture(&state, 80, 24), "PAUSED");
    let before = state.rates.len();
    state.take(Snapshot {
        at: Instant::now(),
        stats: json!({}),
        hottest: json!({}),
    });
    assert_eq!(
        (state.rates.len(), state.stats()["in_flight"].as_u64()),
        (before, Some(12))
    );
    press(&mut state, KeyCode::Char('p'));
    for code in [KeyCode::Char('q'), KeyCode::Esc] {
        assert_eq!(press(&mut state, code), Next::Quit);
    }
    assert_eq!(
        state.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)),
        Next::Quit
    );
}

#[test]
fn trouble_is_told_and_forgotten() {
    let mut state = state();
    state.trouble("the admin listener cannot be reached: Connection refused".to_owned());
    position(&picture(&state, 80, 24), "s old: the admin listener cannot be reached");
    position(&picture(&state, 80, 24), "hits     93.1 %");
    // It was begun anew: no rate comes of that.
    let rates = state.rates.len();
    state.take(Snapshot {
        at: Instant::now() + Duration::from_secs(60),
        stats: stats(1),
        hottest: json!({}),
    });
    assert_eq!((state.rates.len(), &state.trouble), (rates, &None));
    position(&picture(&state, 80, 24), "ready");
}

#[test]
fn no_size_and_no_answer_upsets_it() {
    let mut full = state();
    let mut empty = State::new(String::new());
    empty.take(Snapshot {
        at: Instant::now(),
        stats: json!([1, "x"]),
        hottest: json!(null),
    });
    for _ in Tab::ALL {
        for width in [1, 2, 5, 10, 20, 40, 79, 80, 200, 400] {
            for height in [1, 2, 3, 6, 10, 21, 22, 24, 60] {
                picture(&full, width, height);
                picture(&empty, width, height);
            }
        }
        press(&mut full, KeyCode::Tab);
        press(&mut empty, KeyCode::Tab);
    }
}
