//! How a case is played.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use forebay::clock::Clock;

use super::script::{Case, ExpectedBody, Reply, Source, Step, Value};
use crate::support::client::{Client, Response};
use crate::support::inside::{Inside, http_date};
use crate::support::origin::{self, Origin, Request};

/// Says in a reply which step made it.
const MADE_BY: &str = "Made-By";
/// Says in a request which step it is.
const STEP: &str = "Step";

/// Fields that are the connection's business, or that a cache may add to.
const NOT_COMPARED: [&str; 9] = [
    "age",
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the origin knows of the case that is played.
#[derive(Default)]
struct Stage {
    path: String,
    steps: Vec<Step>,
    /// By step: the fields and the body as they were sent, and when.
    sent: HashMap<usize, Sent>,
    asked: HashMap<usize, Request>,
    confirmed: bool,
}

#[derive(Clone)]
struct Sent {
    at: SystemTime,
    fields: Vec<(String, String)>,
    body: String,
}

/// Plays all cases against one Forebay with these sections in its configuration; answers what went wrong, one line for each case that failed.
pub async fn run(cases: &[Case], sections: &str) -> Vec<String> {
    let clock = Clock::new();
    let stage = Arc::new(Mutex::new(Stage::default()));
    let origin = {
        let (stage, clock) = (Arc::clone(&stage), clock.clone());
        Origin::builder()
            .answering(move |request| reply(&mut stage.lock().unwrap(), request, &clock))
            .start()
            .await
    };
    let proxy = Inside::with_clock(&origin, sections, &clock).await;
    let mut failures = Vec::new();
    for case in cases {
        *stage.lock().unwrap() = Stage {
            path: format!("/{}", case.id),
            steps: case.steps.clone(),
            ..Stage::default()
        };
        if let Err(what) = play(case, &stage, &proxy).await {
            let otherwise = case.otherwise.map(|why| format!(" ({why})")).unwrap_or_default();
            failures.push(format!("{:?} {}: {what}{otherwise}", case.kind, case.id));
        }
    }
    failures
}

async fn play(case: &Case, stage: &Mutex<Stage>, proxy: &Inside) -> Result<(), String> {
    let mut client = proxy.client().await;
    for (index, step) in case.steps.iter().enumerate() {
        let number = index + 1;
        let fail = |what: String| Err(format!("request {number}: {what}"));
        stage.lock().unwrap().confirmed = false;
        let response = match ask(&mut client, step, number, stage, proxy).await {
            Ok(response) => response,
            Err(error) => return fail(format!("no response: {error}")),
        };
        if response.field("connection") == Some("close") {
            client = proxy.client().await;
        }
        if let Err(what) = judge(step, number, &response, &stage.lock().unwrap()) {
            return fail(format!("{what}\n{}", response.raw_head.trim_end()));
        }
        proxy.advance(step.wait);
    }
    Ok(())
}

async fn ask(
    client: &mut Client,
    step: &Step,
    number: usize,
    stage: &Mutex<Stage>,
    proxy: &Inside,
) -> std::io::Result<Response> {
    let (target, fields) = {
        let stage = stage.lock().unwrap();
        let last = stage.sent.iter().max_by_key(|(number, _)| **number);
        let at = last.map_or_else(|| proxy.now(), |(_, sent)| sent.at);
        let mut fields: Vec<_> = step
            .request
            .iter()
            .map(|(name, value)| (name.clone(), text(value, at)))
            .collect();
        fields.push((STEP.to_owned(), number.to_string()));
        (format!("{}{}", stage.path, step.suffix), fields)
    };
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    client
        .send_request(step.method, &target, &fields, step.request_body.as_bytes())
        .await;
    match step.method {
        "HEAD" => Ok(client.response_without_body().await),
        _ => client.try_response().await,
    }
}

/// What the origin says.
fn reply(stage: &mut Stage, request: &Request, clock: &Clock) -> origin::Reply {
    let number: usize = request.field(STEP).and_then(|value| value.parse().ok()).unwrap();
    let step = stage.steps[number - 1].clone();
    stage.asked.insert(number, request.clone());
    let Reply {
        cut,
        interim,
        status,
        fields,
        body,
        takes,
    } = step.reply;
    clock.advance(Duration::from_secs(takes));
    if cut {
        return origin::Reply::script([origin::Step::Close]);
    }
    let at = clock.now();
    let mut fields: Vec<_> = fields
        .into_iter()
        .map(|field| (field.name, text(&field.value, at)))
        .collect();
    let mut body = body.unwrap_or_else(|| format!("body of {}", stage.path));
    let mut status = status;
    let by_tag = step.expected.source == Source::ConfirmedByTag && repeats(stage, request, "etag", "if-none-match");
    let by_date = step.expected.source == Source::ConfirmedByDate
        && repeats(stage, request, "last-modified", "if-modified-since");
    let sent = Sent {
        at,
        fields: fields.clone(),
        body: body.clone(),
    };
    stage.sent.insert(number, sent);
    if by_tag || by_date {
        stage.confirmed = true;
        status = 304;
        body.clear();
    }
    fields.push((MADE_BY.to_owned(), number.to_string()));
    let bodiless = matches!(status, 204 | 304);
    let chunked = fields
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
    if bodiless {
        body.clear();
    } else if !chunked && !fields.iter().any(|(name, _)| name == "Content-Length") {
        fields.push(("Content-Length".to_owned(), body.len().to_string()));
    }
    let mut message = String::new();
    for (status, fields) in interim {
        let fields: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        message.push_str(&format!("HTTP/1.1 {status} \r\n{fields}\r\n"));
    }
    let fields: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    message.push_str(&format!("HTTP/1.1 {status} \r\n{fields}\r\n"));
    match (request.method.as_str(), chunked) {
        ("HEAD", _) => {}
        (_, false) => message.push_str(&body),
        (_, true) => message.push_str(&format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())),
    }
    origin::Reply::raw(message)
}

/// Whether the request's condition is the validator of the last reply that had one.
fn repeats(stage: &Stage, request: &Request, validator: &str, condition: &str) -> bool {
    let with_one = stage
        .sent
        .iter()
        .filter_map(|(number, sent)| Some((number, *origin::values(&sent.fields, validator).first()?)));
    let last = with_one.max_by_key(|(number, _)| **number);
    last.is_some_and(|(_, value)| request.field(condition) == Some(value))
}

fn judge(step: &Step, number: usize, response: &Response, stage: &Stage) -> Result<(), String> {
    let expected = &step.expected;
    let made_by = response.field(MADE_BY).and_then(|value| value.parse::<usize>().ok());
    let asked = stage.asked.get(&number);
    let right = match expected.source {
        Source::Anybody => true,
        Source::Store => made_by.is_some_and(|made_by| made_by < number),
        Source::Origin => made_by == Some(number) && asked.is_some() && !stage.confirmed,
        Source::ConfirmedByTag | Source::ConfirmedByDate => stage.confirmed,
        Source::Nobody => made_by.is_none(),
    };
    if !right {
        return Err(format!("should come from {:?}, made by {made_by:?}", expected.source));
    }
    let status = expected.status.unwrap_or(match expected.source {
        Source::Nobody => response.status,
        _ => step.reply.status,
    });
    if response.status != status {
        return Err(format!("status {}, not {status}", response.status));
    }
    let at = made_by.and_then(|number| stage.sent.get(&number)).map(|sent| sent.at);
    for (name, value) in &expected.fields {
        let wanted = text(value, at.unwrap_or(SystemTime::UNIX_EPOCH));
        let found = response.fields(name).join(", ");
        if found != wanted {
            return Err(format!("{name} is {found:?}, not {wanted:?}"));
        }
    }
    if let Some(name) = expected.missing.iter().find(|name| response.field(name).is_some()) {
        return Err(format!("{name} is there"));
    }
    if let Some(least) = expected.age_above {
        let age = response.field("age").and_then(|age| age.parse::<u64>().ok());
        if age.is_none_or(|age| age <= least) {
            return Err(format!("Age is {age:?}, not above {least}"));
        }
    }
    if made_by == Some(number) && asked.is_some() && !step.reply.cut {
        unchanged(step, response, stage.sent.get(&number))?;
    }
    if response.interim.len() != step.reply.interim.len() {
        return Err(format!("interim responses: {:?}", response.interim));
    }
    for ((status, fields), (wanted, wanted_fields)) in response.interim.iter().zip(&step.reply.interim) {
        let has = |(name, value): &(&str, &str)| fields.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value);
        if status != wanted || !wanted_fields.iter().all(has) {
            return Err(format!("interim response {status} with {fields:?}"));
        }
    }
    body(step, response, made_by.and_then(|number| stage.sent.get(&number)))?;
    asked_for(step, asked)
}

/// Whoever causes a reply gets its fields.
fn unchanged(step: &Step, response: &Response, sent: Option<&Sent>) -> Result<(), String> {
    let Some(sent) = sent else { return Ok(()) };
    for field in step.reply.fields.iter().filter(|field| field.seen) {
        let name = field.name.as_str();
        if NOT_COMPARED.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            continue;
        }
        let wanted = origin::values(&sent.fields, name).join(", ");
        let found = response.fields(name).join(", ");
        if wanted != found {
            return Err(format!("{name} is {found:?}, the origin said {wanted:?}"));
        }
    }
    Ok(())
}

fn body(step: &Step, response: &Response, sent: Option<&Sent>) -> Result<(), String> {
    if step.method == "HEAD" || matches!(response.status, 204 | 304) {
        return Ok(());
    }
    let wanted = match (&step.expected.body, sent) {
        (ExpectedBody::Text(text), _) => text,
        (ExpectedBody::Its, Some(sent)) => &sent.body,
        (ExpectedBody::Its, None) | (ExpectedBody::Any, _) => return Ok(()),
    };
    if response.body != wanted.as_bytes() {
        return Err(format!("body is {:?}, not {wanted:?}", response.text()));
    }
    Ok(())
}

fn asked_for(step: &Step, asked: Option<&Request>) -> Result<(), String> {
    let expected = &step.expected;
    if expected.asked.is_empty() && expected.asked_method.is_none() {
        return Ok(());
    }
    let Some(asked) = asked else {
        return Err("the origin was not asked".to_owned());
    };
    for (name, wanted) in &expected.asked {
        let found = asked.fields(name).join(", ");
        if found != *wanted {
            return Err(format!("the origin sees {name} {found:?}, not {wanted:?}"));
        }
    }
    match expected.asked_method {
        Some(wanted) if wanted != asked.method => Err(format!("the origin sees {}, not {wanted}", asked.method)),
        _ => Ok(()),
    }
}

fn text(value: &Value, at: SystemTime) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Date(offset) => http_date(at, *offset),
        Value::OldDate(offset) => old_date(&http_date(at, *offset)),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` → `Sunday, 06-Nov-94 08:49:37 GMT`.
fn old_date(date: &str) -> String {
    const DAYS: [&str; 7] = [
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
    ];
    let day = DAYS.iter().find(|day| day.starts_with(&date[..3])).unwrap();
    let [number, month, year, time] = date[5..25].split(' ').collect::<Vec<_>>()[..] else {
        panic!("not a date: {date}");
    };
    format!("{day}, {number}-{month}-{} {time} GMT", &year[2..])
}
