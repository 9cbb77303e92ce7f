//! Compression as clients and origins see it.

mod clients;
mod dictionaries;
mod live;
mod random;
mod shared;
mod stored;

use std::time::Duration;

use bytes::Bytes;
use forebay::transform::compress::decode::decode;
use forebay::transform::negotiate::Coding;

use crate::support::client::Response;
use crate::support::inside::Inside;
use crate::support::origin::Reply;
use crate::support::within_time;

/// On, with nothing said about it.
const ON: &str = "defaults: { compression: on }\n";

/// Levels whose difference shows, and takes next to nothing: what is made behind has the lowest priority that there is.
const LEVELS: &str = "live_levels: { zstd: 1 }, stored_levels: { zstd: 7 }";

/// Waits until a form has been made anew behind everybody's back: on a busy machine that has time.
async fn best_is_made(proxy: &Inside) {
    let best = [("coding", "zstd"), ("result", "best")];
    within_time(Duration::from_secs(60), "the best form", async {
        while proxy.metric("forebay_compressions_total", &best).await < 1.0 {
            // Waiting must not keep the machine busy.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A page of so many bytes that compresses well.
fn page(length: usize) -> String {
    let mut page = String::with_capacity(length + 40);
    let mut number: u32 = 1;
    while page.len() < length {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        page += &format!("<li class=\"item\">{}</li>\n", number >> 20);
    }
    page.truncate(length);
    page
}

/// 200 with a page and a strong tag, for a minute.
fn fresh_page(length: usize) -> Reply {
    Reply::fresh(60, page(length))
        .field("Content-Type", "text/html")
        .field("ETag", "\"v1\"")
}

/// What a response says, read with a decoder of our own.
#[track_caller]
fn read(response: &Response) -> Bytes {
    match response.field("content-encoding") {
        None => response.body.clone().into(),
        Some(coding) => {
            let coding = Coding::parse(coding.as_bytes()).unwrap_or_else(|| panic!("not a coding: {coding}"));
            decode(&response.body, coding, u64::MAX).unwrap()
        }
    }
}

fn accepting(coding: &str) -> [(&str, &str); 1] {
    [("Accept-Encoding", coding)]
}
