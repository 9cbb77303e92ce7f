//! Statuses with explicit freshness (RFC 9111 §3), and `must-understand`.

use super::script::{Case, Step, get, optimal, required};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for status in [
        200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599,
    ] {
        let reply = |step: Step| step.status(status).says("Last-Modified", -100_000).says("Date", 0);
        cases.push(optimal(
            format!("status-{status}-fresh"),
            [
                reply(get()).says("Cache-Control", "max-age=100000"),
                get().stored().gives(status),
            ],
        ));
        cases.push(required(
            format!("status-{status}-stale"),
            [reply(get()).says("Expires", -5000), get().fetched()],
        ));
    }
    let understood = || get().says("Cache-Control", "max-age=3600, no-store, must-understand");
    cases.extend([
        required(
            "status-599-must-understand",
            [understood().status(599), get().fetched()],
        ),
        optimal("status-200-must-understand", [understood(), get().stored()]),
    ]);
    // About one request, whatever their fields say.
    for status in [401, 407, 408, 412, 416, 417, 421, 425, 426, 428, 429, 431] {
        cases.push(required(
            format!("status-{status}-one-request"),
            [
                get().status(status).says("Cache-Control", "max-age=3600"),
                get().fetched(),
            ],
        ));
    }
    cases
}
