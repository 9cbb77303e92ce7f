//! Compression as clients and origins see it.

mod clients;
mod dictionaries;
mod live;
mod shared;
mod stored;

use bytes::Bytes;
use forebay::transform::compress::decode::decode;
use forebay::transform::negotiate::Coding;

use crate::support::client::Response;
use crate::support::origin::Reply;

/// On, with nothing said about it.
const ON: &str = "defaults: { compression: on }\n";

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
