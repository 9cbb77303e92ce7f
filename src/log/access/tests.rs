use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::super::tests::{Lines, json_log};
use super::*;
use crate::config::{AccessFormat, LogPath};
use crate::metrics::Metrics;

/// Longer than any of these tests takes.
const LONG: Duration = Duration::from_secs(60);

fn config(path: &Path) -> config::AccessLog {
    config::AccessLog {
        format: AccessFormat::Json,
        path: LogPath::File(path.to_owned()),
        sample: 1.0,
        slow: None,
    }
}

fn started(config: &config::AccessLog) -> (AccessLog, Arc<Counter>) {
    let dropped = Metrics::new().log_dropped();
    let destination = Destination::open(Some(config)).unwrap();
    (AccessLog::start(destination, Arc::clone(&dropped)).unwrap(), dropped)
}

fn entry(request_id: &str) -> Entry {
    Entry {
        time: SystemTime::UNIX_EPOCH,
        client_ip: None,
        listener: "listener".into(),
        method: Some(Method::GET),
        host: "example.org".to_owned(),
        target: "/x?token=s3cret".to_owned(),
        version: Some(Version::Http11),
        status: 200,
        route: None,
        upstream: None,
        server: None,
        cache: None,
        coding: None,
        request_bytes: 0,
        response_bytes: 0,
        duration: Duration::ZERO,
        first_byte: None,
        request_id: request_id.to_owned(),
        user_agent: None,
        referer: None,
        error: None,
        limit: None,
        limit_reason: None,
        tokens: None,
    }
}

fn ids(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let id = |line| {
        serde_json::from_str::<Value>(line).unwrap()["request_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    text.lines().map(id).collect()
}

#[test]
fn entries_of_all_threads_are_written_in_the_order_of_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, dropped) = started(&config(&path));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..50_u32 {
                    let order = number * 4 + thread;
                    let duration = Duration::from_millis(order.into());
                    log.send(
                        Entry {
                            duration,
                            ..entry(&format!("{order:03}"))
                        },
                        duration,
                    );
                }
            });
        }
    });
    assert_eq!(log.close(LONG), Closed::Flushed);
    let mut written = ids(&path);
    assert_eq!(written.len(), 200);
    written.sort();
    let expected: Vec<_> = (0..200).map(|order| format!("{order:03}")).collect();
    assert_eq!(written, expected);
    assert_eq!(dropped.value(), 0);
}

#[test]
fn a_batch_is_sorted_by_the_end_of_its_requests() {
    let mut batch = Vec::new();
    let shared = Arc::clone(&started(&config(Path::new("/dev/null"))).0.shared);
    let writer = Writer {
        shared,
        destination: Destination::open(None).unwrap(),
    };
    for millis in [3, 1, 2] {
        let duration = Duration::from_millis(millis);
        batch.push(Pending {
            entry: Entry { duration, ..entry("") },
            slow: None,
            generation: 0,
        });
    }
    writer.take(&mut batch, Next::Take);
    assert!(batch.is_sorted_by_key(|pending| pending.entry.duration));
}

#[test]
fn what_the_queue_cannot_hold_is_dropped_and_counted() {
    // A pipe that nobody reads: the writer blocks in it, as it would with a reader that hangs.
    let (mut reader, pipe) = io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pipe));
    let (log, dropped) = started(&config(Path::new(&path)));
    let referer = Some(vec![b'a'; format::URL_LIMIT]);
    let sent = 3 * QUEUE_BYTES / format::URL_LIMIT;
    for number in 0..sent {
        log.send(
            Entry {
                referer: referer.clone(),
                ..entry(&number.to_string())
            },
            Duration::ZERO,
        );
    }
    assert!(dropped.value() > 0, "nothing was dropped");
    assert_eq!(log.close(Duration::from_millis(1)), Closed::TimedOut);
    drop(pipe);
    let received = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines().count()
    });
    assert_eq!(log.close(LONG), Closed::Flushed);
    drop(log);
    assert_eq!(received.join().unwrap() as u64 + dropped.value(), sent as u64);
}

#[test]
fn a_reader_that_left_costs_lines_and_nothing_else() {
    let (reader, pipe) = io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pipe));
    let (log, dropped) = started(&config(Path::new(&path)));
    drop((reader, pipe));
    for _ in 0..3 {
        log.send(entry("1"), Duration::ZERO);
    }
    assert_eq!(log.close(LONG), Closed::Flushed);
    assert_eq!(dropped.value(), 3);
}

#[test]
fn entries_after_the_end_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, dropped) = started(&config(&path));
    log.send(entry("1"), Duration::ZERO);
    assert_eq!(log.close(LONG), Closed::Flushed);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| log.send(entry("2"), Duration::ZERO));
        }
    });
    assert_eq!(log.close(LONG), Closed::Flushed);
    assert_eq!((ids(&path), dropped.value()), (vec!["1".to_owned()], 3));
}

#[test]
fn a_moved_file_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let (log, _) = started(&config(&path));
    log.send(entry("1"), Duration::ZERO);
    fs::rename(&path, &moved).unwrap();
    log.send(entry("2"), Duration::ZERO);
    log.reopen().unwrap();
    log.send(entry("3"), Duration::ZERO);
    assert_eq!(log.close(LONG), Closed::Flushed);
    assert_eq!(ids(&moved), ["1", "2"]);
    assert_eq!(ids(&path), ["3"]);
}

#[test]
fn a_file_that_cannot_be_opened_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("logs");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("access.log");
    let (log, _) = started(&config(&path));
    let moved = folder.path().join("moved");
    fs::rename(&inner, &moved).unwrap();
    assert_eq!(log.reopen().unwrap_err().kind(), io::ErrorKind::NotFound);
    log.send(entry("1"), Duration::ZERO);
    assert_eq!(log.close(LONG), Closed::Flushed);
    assert_eq!(ids(&moved.join("access.log")), ["1"]);
}

#[test]
fn another_destination_brings_its_policy() {
    let folder = tempfile::tempdir().unwrap();
    let (log, dropped) = started(&config(&folder.path().join("access.log")));
    assert!(log.wants(b"1", 200, Duration::ZERO));
    log.switch(Destination::open(None).unwrap());
    assert!(!log.wants(b"1", 500, LONG));
    let path = folder.path().join("combined.log");
    let combined = config::AccessLog {
        format: AccessFormat::Combined,
        sample: 0.0,
        ..config(&path)
    };
    log.switch(Destination::open(Some(&combined)).unwrap());
    assert!(!log.wants(b"1", 200, Duration::ZERO));
    log.send(entry("1"), Duration::ZERO);
    assert_eq!(log.close(LONG), Closed::Flushed);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        text,
        "- - - [01/Jan/1970:00:00:00 +0000] \"GET /x?token=*** HTTP/1.1\" 200 0 \"-\" \"-\"\n"
    );
    assert_eq!(dropped.value(), 0);
}

#[test]
fn a_slow_request_gets_one_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let slow = config::AccessLog {
        slow: Some(Duration::from_secs(1)),
        ..config(&path)
    };
    let program: Lines = json_log(|| {
        let (log, _) = started(&slow);
        for (id, millis) in [("quick", 1000), ("slow", 1001)] {
            let duration = Duration::from_millis(millis);
            log.send(Entry { duration, ..entry(id) }, duration);
        }
        assert_eq!(log.close(LONG), Closed::Flushed);
    });
    let warnings = program.json();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["message"], "slow request");
    assert_eq!(warnings[0]["level"], "WARN");
    assert_eq!(warnings[0]["request_id"], "slow");
    assert_eq!(warnings[0]["uri"], "/x?token=***");
    assert_eq!(warnings[0]["took_seconds"], 1.001);
    assert_eq!(ids(&path), ["quick", "slow"]);
}
