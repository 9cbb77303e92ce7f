//! What is on the screen, and what keys do to it.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;

use crate::cli::admin::stats::list;

/// Rates that are remembered: as many as the widest terminal has columns.
const REMEMBERED: usize = 512;

/// Rows of a page up or down.
const PAGE: usize = 10;

/// What was seen at one time.
#[derive(Debug)]
pub struct Snapshot {
    pub at: Instant,
    pub stats: Value,
    pub hottest: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    Overview,
    Routes,
    Upstreams,
    Hottest,
    Refused,
}

impl Tab {
    pub const ALL: [Self; 5] = [
        Self::Overview,
        Self::Routes,
        Self::Upstreams,
        Self::Hottest,
        Self::Refused,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Routes => "Routes",
            Self::Upstreams => "Upstreams",
            Self::Hottest => "Hottest",
            Self::Refused => "Refused",
        }
    }
}

/// Which routes come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Rate,
    Slowest,
    Errors,
    Misses,
    Name,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Rate, Self::Slowest, Self::Errors, Self::Misses, Self::Name];

    pub fn title(self) -> &'static str {
        match self {
            Self::Rate => "busiest first",
            Self::Slowest => "slowest first",
            Self::Errors => "most errors first",
            Self::Misses => "fewest hits first",
            Self::Name => "by name",
        }
    }
}

/// Whether what comes in is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    Live,
    Paused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    GoOn,
    Quit,
}

/// All of the screen.
#[derive(Debug)]
pub struct State {
    /// Of the admin listener.
    pub address: String,
    pub tab: Tab,
    pub sort: Sort,
    pub following: Following,
    /// Rows of the list that are above the screen.
    pub skipped: usize,
    /// What was seen last.
    pub seen: Option<Snapshot>,
    /// Why there is nothing newer.
    pub trouble: Option<String>,
    /// Requests per second, between each two looks; the last one at the end.
    pub rates: VecDeque<u64>,
}

impl State {
    pub fn new(address: String) -> Self {
        Self {
            address,
            tab: Tab::Overview,
            sort: Sort::Rate,
            following: Following::Live,
            skipped: 0,
            seen: None,
            trouble: None,
            rates: VecDeque::new(),
        }
    }

    /// There is news.
    pub fn take(&mut self, snapshot: Snapshot) {
        self.trouble = None;
        if self.following == Following::Paused {
            return;
        }
        if let Some(rate) = self.seen.as_ref().and_then(|before| rate(before, &snapshot)) {
            self.rates.push_back(rate);
            while self.rates.len() > REMEMBERED {
                self.rates.pop_front();
            }
        }
        self.seen = Some(snapshot);
    }

    /// There is none.
    pub fn trouble(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// How old is what is shown.
    pub fn age(&self) -> Duration {
        self.seen.as_ref().map_or(Duration::ZERO, |seen| seen.at.elapsed())
    }

    pub fn stats(&self) -> &Value {
        self.seen.as_ref().map_or(&Value::Null, |seen| &seen.stats)
    }

    pub fn hottest(&self) -> &Value {
        self.seen.as_ref().map_or(&Value::Null, |seen| &seen.hottest["top"])
    }

    /// Routes, as they are sorted.
    pub fn routes(&self) -> Vec<&Value> {
        let mut routes: Vec<&Value> = list(&self.stats()["routes"]).collect();
        let name = |route: &Value| route["route"].as_str().unwrap_or_default().to_owned();
        let figure = |route: &Value, path: &str| route.pointer(path).and_then(Value::as_f64);
        // What there is no figure for comes last.
        let falling = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => b.total_cmp(&a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        routes.sort_by(|a, b| {
            let by = |path| falling(figure(a, path), figure(b, path));
            let order = match self.sort {
                Sort::Rate => by("/last_10s/requests_per_second"),
                Sort::Slowest => by("/last_1m/latency/p95"),
                Sort::Errors => by("/last_1m/error_ratio"),
                Sort::Misses => {
                    let missed = |route| figure(route, "/last_1m/hit_ratio/all").map(|hits| 1.0 - hits);
                    falling(missed(a), missed(b))
                }
                Sort::Name => Ordering::Equal,
            };
            order.then_with(|| name(a).cmp(&name(b)))
        });
        routes
    }

    pub fn key(&mut self, key: KeyEvent) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::GoOn;
        }
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if with_control => return Next::Quit,
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Next::Quit,
            KeyCode::Char('p' | ' ') => {
                self.following = match self.following {
                    Following::Live => Following::Paused,
                    Following::Paused => Following::Live,
                };
            }
            KeyCode::Char('s') => self.sort = after(&Sort::ALL, self.sort, 1),
            KeyCode::Char('S') => self.sort = after(&Sort::ALL, self.sort, Sort::ALL.len() - 1),
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.turn(1),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => self.turn(Tab::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='5') => {
                let index = usize::from(digit as u8 - b'1');
                if let Some(tab) = Tab::ALL.get(index) {
                    (self.tab, self.skipped) = (*tab, 0);
                }
            }
            KeyCode::Up | KeyCode::Char('k') => self.skipped = self.skipped.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.skip(1),
            KeyCode::PageUp => self.skipped = self.skipped.saturating_sub(PAGE),
            KeyCode::PageDown => self.skip(PAGE),
            KeyCode::Home => self.skipped = 0,
            KeyCode::End => self.skip(usize::MAX),
            _ => {}
        }
        Next::GoOn
    }

    fn turn(&mut self, by: usize) {
        self.tab = after(&Tab::ALL, self.tab, by);
        self.skipped = 0;
    }

    fn skip(&mut self, rows: usize) {
        self.skipped = self.skipped.saturating_add(rows).min(self.rows().saturating_sub(1));
    }

    /// Rows of the list that is shown.
    fn rows(&self) -> usize {
        let stats = self.stats();
        let inner = |outer: &str, inner: &str| list(&stats[outer]).map(|one| list(&one[inner]).count()).sum();
        match self.tab {
            Tab::Overview => 0,
            Tab::Routes => list(&stats["routes"]).count(),
            Tab::Upstreams => inner("upstreams", "servers"),
            Tab::Hottest => list(self.hottest()).count(),
            Tab::Refused => inner("limits", "most_refused"),
        }
    }
}

/// The one that is so many places further, around the end.
fn after<T: Copy + PartialEq>(all: &[T], one: T, by: usize) -> T {
    let index = all.iter().position(|other| *other == one).unwrap_or(0);
    all.iter().cycle().nth(index + by).copied().unwrap_or(one)
}

/// Requests per second between two looks. `None`: it began anew in between.
fn rate(before: &Snapshot, now: &Snapshot) -> Option<u64> {
    let count = |snapshot: &Snapshot| snapshot.stats["since_start"]["requests"].as_u64();
    let more = count(now)?.checked_sub(count(before)?)?;
    let time = now.at.saturating_duration_since(before.at).as_secs_f64();
    (time > 0.0).then(|| (more as f64 / time).round() as u64)
}
