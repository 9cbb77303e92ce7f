//! Parts of representations (RFC 9111 §3.3, §3.4).

use super::script::{Case, Step, get, optimal, required};

pub fn cases() -> Vec<Case> {
    let stored_part = |content_range: &str| {
        get()
            .asks("Range", "bytes=-5")
            .status(206)
            .says("Cache-Control", "max-age=3600")
            .says("Content-Range", content_range)
            .body("01234")
            .origin_sees("Range", "bytes=-5")
    };
    let whole = |body: &str| get().says("Cache-Control", "max-age=3600").says("A", "1").body(body);
    let ranged = |range: &str, text: &str| get().asks("Range", range).stored().gives(206).text(text);
    let from_whole = |id: &str, body: &str, range: &str, text: &str| {
        optimal(
            format!("partial-store-complete-reuse-{id}"),
            [whole(body), ranged(range, text)],
        )
    };
    let from_part = |id: &str, range: &str, text: &str| {
        optimal(
            format!("partial-store-partial-reuse-{id}"),
            [stored_part("bytes 5-9/10"), ranged(range, text)],
        )
    };
    let odd = |step: Step| step.any_body();
    vec![
        from_part("partial", "bytes=-5", "01234"),
        from_part("partial-byterange", "bytes=6-8", "123"),
        from_part("partial-absent", "bytes=6-", "1234"),
        from_part("partial-suffix", "bytes=-1", "4"),
        from_whole("partial", "01234567890", "bytes=0-1", "01"),
        from_whole("partial-no-last", "01234567890", "bytes=1-", "1234567890"),
        from_whole("partial-suffix", "0123456789A", "bytes=-1", "A"),
        optimal(
            "partial-store-partial-complete",
            [stored_part("bytes 0-4/10"), odd(get()).origin_sees("Range", "bytes=5-")],
        ),
        required(
            "partial-use-stored-headers",
            [whole("01234567890"), ranged("bytes=0-1", "01").shows("A", "1")],
        ),
        // In the suite the five bytes are said to be six: then nobody knows which bytes they are.
        optimal(
            "partial-store-partial-wrong-length",
            [
                odd(stored_part("bytes 4-9/10")),
                get().asks("Range", "bytes=-5").stored().gives(206).text("01234"),
            ],
        ),
    ]
}
