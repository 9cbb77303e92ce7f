//! How many requests may be in flight at once.

use std::time::Duration;

use super::{limit, positive};
use crate::config::diagnostic::KeyPath;
use crate::config::file::shape::Switch;
use crate::config::file::{FileAdaptive, FileConcurrency, FileConfig, FileInFlight};
use crate::config::report::Report;
use crate::config::{Concurrency, InFlight, PerClient, defaults};

/// Those of the file, but for routes. `upstreams`: their names, in order.
pub fn resolve<'a>(file: &FileConfig, report: &mut Report, upstreams: impl Iterator<Item = &'a str>) -> Concurrency {
    let root = KeyPath::root();
    let path = root.key("concurrency");
    let common = Common::of(file);
    let typed = file.concurrency.as_ref();
    let per_upstream = |name: &str, report: &mut Report| {
        let path = root.key("upstreams");
        let upstreams = file.upstreams.as_ref()?;
        let (path, _, typed) = upstreams.under(&path).find(|(_, other, _)| *other == name)?;
        let typed = typed.concurrency.as_ref()?;
        Some(in_flight(typed, &common, report, &path.key("concurrency")))
    };
    let upstreams = upstreams.map(|name| per_upstream(name, report)).collect();
    let Some(typed) = typed else {
        return Concurrency {
            upstreams,
            ..Concurrency::default()
        };
    };
    positive(report, &path.key("queue_timeout"), Some(common.queue_timeout));
    at_least_one(report, &path.key("max_in_flight"), typed.max_in_flight);
    at_least_one(report, &path.key("max_streams"), typed.max_streams);
    let max = typed.max_in_flight.unwrap_or(defaults::MAX_IN_FLIGHT);
    Concurrency {
        overall: Some(InFlight {
            max: max as usize,
            queue: common.queue,
            queue_timeout: common.queue_timeout,
            adaptive: adaptive(typed.adaptive.as_ref(), max, report, &path.key("adaptive")),
        }),
        per_client: per_client(typed, report, &path.key("per_client")),
        max_streams: typed.max_streams.map(|max| max as usize),
        queue_timeout: common.queue_timeout,
        upstreams,
    }
}

/// What is left out elsewhere.
pub struct Common {
    queue: usize,
    queue_timeout: Duration,
}

impl Common {
    pub fn of(file: &FileConfig) -> Self {
        let typed = file.concurrency.as_ref();
        let queue = typed.and_then(|typed| typed.queue).unwrap_or(defaults::IN_FLIGHT_QUEUE);
        let timeout = typed.and_then(|typed| typed.queue_timeout.as_ref());
        Self {
            queue: queue as usize,
            queue_timeout: timeout.map_or(defaults::IN_FLIGHT_TIMEOUT, |timeout| timeout.0),
        }
    }
}

/// Of a route or an upstream.
pub fn in_flight(typed: &FileInFlight, common: &Common, report: &mut Report, path: &KeyPath) -> InFlight {
    let max_path = path.key("max_in_flight");
    if typed.max_in_flight.is_none() && !report.is_broken(&max_path) {
        report.key(&max_path, "is missing", "like 100");
    }
    at_least_one(report, &max_path, typed.max_in_flight);
    let queue_timeout = typed.queue_timeout.as_ref().map(|timeout| timeout.0);
    positive(report, &path.key("queue_timeout"), queue_timeout);
    let max = typed.max_in_flight.unwrap_or(1);
    InFlight {
        max: max as usize,
        queue: typed.queue.map_or(common.queue, |queue| queue as usize),
        queue_timeout: queue_timeout.unwrap_or(common.queue_timeout),
        adaptive: adaptive(typed.adaptive.as_ref(), max, report, &path.key("adaptive")),
    }
}

fn adaptive(typed: Option<&Switch<FileAdaptive>>, max: u32, report: &mut Report, path: &KeyPath) -> Option<usize> {
    let min = match typed {
        None | Some(Switch::Off) => return None,
        Some(Switch::On) => None,
        Some(Switch::With(typed)) => typed.min,
    };
    let path = path.key("min");
    at_least_one(report, &path, min);
    if min.is_some_and(|min| min > max) {
        report.value(&path, "must be at most max_in_flight", "");
    }
    Some(min.unwrap_or(defaults::ADAPTIVE_MIN).min(max) as usize)
}

fn per_client(typed: &FileConcurrency, report: &mut Report, path: &KeyPath) -> Option<PerClient> {
    let typed = typed.per_client.as_ref()?;
    let max_path = path.key("max_in_flight");
    if typed.max_in_flight.is_none() && !report.is_broken(&max_path) {
        report.key(&max_path, "is missing", "like 20");
    }
    at_least_one(report, &max_path, typed.max_in_flight);
    let max = typed.max_in_flight.unwrap_or(1);
    Some(PerClient {
        max: max as usize,
        queue: typed.queue.unwrap_or(max) as usize,
        key: limit::key(typed.key.as_ref(), report, &path.key("key")),
    })
}

fn at_least_one(report: &mut Report, path: &KeyPath, count: Option<u32>) {
    if count == Some(0) {
        report.value(path, "must be at least 1", "");
    }
}
