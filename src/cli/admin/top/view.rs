//! The state, drawn. Any size will do: what does not fit is left out.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, Tabs};
use serde_json::Value;

use super::state::{Following, State, Tab};
use crate::cli::admin::stats::{list, state as server_state};
use crate::cli::admin::table::{bytes, number, percent, plain, rate, seconds};

/// Lines that the curve takes, where there is room for it.
const CURVE: u16 = 4;

/// From so many lines on there is.
const TALL: u16 = 22;

/// A share of errors that is worth looking at, and one that is bad.
const SOME_ERRORS: f64 = 0.001;
const MANY_ERRORS: f64 = 0.01;

pub fn draw(frame: &mut Frame, state: &State) {
    let area = frame.area();
    let curve = if area.height >= TALL { CURVE } else { 0 };
    let [head, graph, tabs, body, foot] = Layout::vertical([
        Constraint::Length(5),
        Constraint::Length(curve),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(summary(state)), head);
    if curve > 0 {
        draw_curve(frame, state, graph);
    }
    let titles = Tab::ALL
        .iter()
        .enumerate()
        .map(|(index, tab)| format!("{} {}", index + 1, tab.title()));
    let selected = Tab::ALL.iter().position(|tab| *tab == state.tab);
    frame.render_widget(
        Tabs::new(titles)
            .select(selected)
            .divider("")
            .highlight_style(Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)),
        tabs,
    );
    match state.tab {
        Tab::Overview => draw_overview(frame, state, body),
        Tab::Routes => draw_list(frame, &routes(state), body, state.skipped),
        Tab::Upstreams => draw_list(frame, &upstreams(state), body, state.skipped),
        Tab::Hottest => draw_list(frame, &hottest(state), body, state.skipped),
        Tab::Refused => draw_list(frame, &refused(state), body, state.skipped),
    }
    let keys = "q quit  tab view  ↑↓ scroll  s sort  p pause";
    frame.render_widget(Paragraph::new(keys).dim(), foot);
    let [_, right] = Layout::horizontal([Constraint::Length(46), Constraint::Min(0)]).areas(foot);
    frame.render_widget(
        Paragraph::new(state.address.as_str()).dim().alignment(Alignment::Right),
        right,
    );
}

/// The figures of all.
fn summary(state: &State) -> Vec<Line<'static>> {
    let stats = state.stats();
    let (now, minute, memory) = (&stats["last_10s"], &stats["last_1m"], &stats["memory"]);
    let connections: u64 = match stats["connections"].as_object() {
        Some(listeners) => listeners.values().filter_map(Value::as_u64).sum(),
        None => 0,
    };
    let phase = plain(&stats["phase"]);
    let mut first = vec![
        Span::from(format!("forebay {} ", plain(&stats["version"]))).bold(),
        match phase.as_str() {
            "ready" => Span::from(phase).green(),
            _ => Span::from(phase).yellow(),
        },
        Span::from(format!(
            "  up {}  {} in flight  {} streams  {connections} connections",
            span(&stats["uptime_seconds"]),
            number(&stats["in_flight"]),
            number(&stats["streams"]),
        )),
    ];
    match (&state.trouble, state.following) {
        (Some(why), _) => {
            let age = state.age().as_secs();
            first = vec![Span::from(format!("{age} s old: {why}")).style(Style::new().white().on_red())];
        }
        (None, Following::Paused) => first.push(Span::from("  PAUSED ").black().on_yellow()),
        (None, Following::Live) => {}
    }
    let hits = &minute["hit_ratio"];
    let redis = match stats["redis"]["up"].as_bool() {
        None => Span::from(""),
        Some(true) => Span::from("   redis up").green(),
        Some(false) => Span::from("   redis DOWN").red().bold(),
    };
    vec![
        Line::from(first),
        Line::from(vec![
            label("requests "),
            Span::from(format!("{}/s", rate(&now["requests_per_second"]))).bold(),
            Span::from(format!("  {}/s in a minute   ", rate(&minute["requests_per_second"]))),
            label("errors "),
            errors(&minute["error_ratio"]),
        ]),
        Line::from(vec![
            label("hits     "),
            Span::from(percent(&hits["all"])).bold(),
            Span::from(format!(
                "  l1 {}  l2 {}  stale {}  collapsed {}",
                percent(&hits["l1"]),
                percent(&hits["l2"]),
                percent(&hits["stale"]),
                percent(&hits["collapsed"]),
            )),
        ]),
        Line::from(vec![
            label("latency  "),
            Span::from(format!(
                "p50 {}  p90 {}  p95 {}  p99 {}",
                seconds(&minute["latency"]["p50"]),
                seconds(&minute["latency"]["p90"]),
                seconds(&minute["latency"]["p95"]),
                seconds(&minute["latency"]["p99"]),
            )),
        ]),
        Line::from(vec![
            label("cache    "),
            Span::from(format!(
                "{} of {}, {} keys   ",
                bytes(&memory["cache_bytes"]),
                bytes(&memory["cache_limit_bytes"]),
                number(&memory["stored_responses"]),
            )),
            label("memory "),
            Span::from(bytes(&memory["resident_bytes"])),
            redis,
        ]),
    ]
}

fn draw_curve(frame: &mut Frame, state: &State, area: Rect) {
    let most = state.rates.iter().max().copied().unwrap_or(0);
    let title = format!(" requests per second, at most {most} ");
    let block = Block::new().borders(Borders::TOP).title(title).dim();
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let shown = state.rates.len().saturating_sub(usize::from(inner.width));
    let rates: Vec<u64> = state.rates.iter().skip(shown).copied().collect();
    frame.render_widget(Sparkline::default().data(rates).style(Style::new().cyan()), inner);
}

/// A table of what there is a name for.
struct List {
    title: String,
    headings: Vec<&'static str>,
    widths: Vec<Constraint>,
    rows: Vec<Vec<Span<'static>>>,
    /// What is said where there is nothing.
    empty: &'static str,
}

fn draw_overview(frame: &mut Frame, state: &State, area: Rect) {
    let lists = [routes(state), upstreams(state), hottest(state)];
    // Each gets what it needs, as far as there is room for the others' first lines.
    let wanted = lists.each_ref().map(|list| list.rows.len().max(1) + 2);
    let shares: [Constraint; 3] = wanted.map(|lines| Constraint::Max(u16::try_from(lines).unwrap_or(u16::MAX)));
    let areas: [Rect; 3] = Layout::vertical(shares).areas(area);
    for (list, area) in lists.iter().zip(areas) {
        draw_list(frame, list, area, 0);
    }
}

fn draw_list(frame: &mut Frame, list: &List, area: Rect, skipped: usize) {
    let title = match skipped {
        0 => format!(" {} ", list.title),
        skipped => format!(" {}, from {} of {} ", list.title, skipped + 1, list.rows.len()),
    };
    let block = Block::new().borders(Borders::TOP).title(title);
    if list.rows.is_empty() {
        frame.render_widget(Paragraph::new(list.empty).dim().block(block), area);
        return;
    }
    let headings = list
        .headings
        .iter()
        .enumerate()
        .map(|(column, heading)| cell(column, (*heading).into()));
    let rows = list
        .rows
        .iter()
        .skip(skipped)
        .map(|row| Row::new(row.iter().enumerate().map(|(column, span)| cell(column, span.clone()))));
    let table = Table::new(rows, list.widths.clone())
        .header(Row::new(headings).style(Style::new().add_modifier(Modifier::DIM)))
        .column_spacing(1)
        .block(block);
    frame.render_widget(table, area);
}

/// Names to the left, figures to the right.
fn cell(column: usize, span: Span<'static>) -> Cell<'static> {
    let line = Line::from(span);
    Cell::from(match column {
        0 => line,
        _ => line.alignment(Alignment::Right),
    })
}

fn routes(state: &State) -> List {
    let row = |route: &&Value| {
        let (now, minute) = (&route["last_10s"], &route["last_1m"]);
        vec![
            plain(&route["route"]).into(),
            rate(&now["requests_per_second"]).into(),
            errors(&minute["error_ratio"]),
            percent(&minute["hit_ratio"]["all"]).into(),
            seconds(&minute["latency"]["p50"]).into(),
            seconds(&minute["latency"]["p95"]).into(),
            seconds(&minute["latency"]["p99"]).into(),
            number(&route["streams"]).into(),
        ]
    };
    List {
        title: format!("routes, {}", state.sort.title()),
        headings: vec!["route", "per s", "errors", "hits", "p50", "p95", "p99", "streams"],
        widths: columns(&[9, 8, 8, 9, 9, 9, 7]),
        rows: state.routes().iter().map(row).collect(),
        empty: "no requests yet",
    }
}

fn upstreams(state: &State) -> List {
    let mut rows = Vec::new();
    for upstream in list(&state.stats()["upstreams"]) {
        let circuit = match upstream["circuit"].as_str() {
            Some("closed") => Span::from("closed").green(),
            Some("half-open") => Span::from("half-open").yellow(),
            Some(_) => Span::from("OPEN").red().bold(),
            None => Span::from("-"),
        };
        for server in list(&upstream["servers"]) {
            let word = server_state(server);
            rows.push(vec![
                format!("{}  {}", plain(&upstream["name"]), plain(&server["server"])).into(),
                match (word.as_str(), server["usable"] == true) {
                    ("drained", _) => Span::from(word).yellow(),
                    (_, true) => Span::from(word).green(),
                    (_, false) => Span::from(word).red().bold(),
                },
                circuit.clone(),
                number(&server["open"]).into(),
                number(&server["attempts"]).into(),
                number(&server["failures"]).into(),
                seconds(&upstream["p95_seconds"]).into(),
            ]);
        }
    }
    List {
        title: "upstreams".to_owned(),
        headings: vec![
            "upstream  server",
            "state",
            "circuit",
            "open",
            "attempts",
            "failures",
            "p95",
        ],
        widths: columns(&[9, 9, 5, 9, 8, 8]),
        rows,
        empty: "no servers",
    }
}

fn hottest(state: &State) -> List {
    let row = |key: &Value| vec![plain(&key["url"]).into(), number(&key["requests"]).into()];
    List {
        title: "asked for most, in the last minutes".to_owned(),
        headings: vec!["url", "requests"],
        widths: columns(&[12]),
        rows: list(state.hottest()).map(row).collect(),
        empty: "nothing that is cached",
    }
}

fn refused(state: &State) -> List {
    let mut rows = Vec::new();
    for limit in list(&state.stats()["limits"]) {
        for key in list(&limit["most_refused"]) {
            rows.push(vec![
                plain(&key["key"]).into(),
                plain(&limit["limit"]).into(),
                number(&key["requests"]).into(),
            ]);
        }
    }
    List {
        title: "refused most by limits, since the start".to_owned(),
        headings: vec!["client", "limit", "requests"],
        widths: columns(&[20, 12]),
        rows,
        empty: "nobody",
    }
}

/// The first column takes what the others leave.
fn columns(others: &[u16]) -> Vec<Constraint> {
    let others = others.iter().map(|width| Constraint::Length(*width));
    std::iter::once(Constraint::Fill(1)).chain(others).collect()
}

fn label(text: &'static str) -> Span<'static> {
    Span::from(text).dim()
}

fn errors(share: &Value) -> Span<'static> {
    let text = Span::from(percent(share));
    match share.as_f64() {
        Some(share) if share >= MANY_ERRORS => text.fg(Color::Red).bold(),
        Some(share) if share >= SOME_ERRORS => text.yellow(),
        _ => text,
    }
}

/// `3d 4h`, `5m 6s`.
fn span(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_f64() else {
        return "-".to_owned();
    };
    // Saturates.
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests;
