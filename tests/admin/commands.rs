//! The commands over the admin listener, as people and scripts use them.

use super::ADMIN;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::proxy::forebay;

#[tokio::test]
async fn commands_tell_in_tables_or_json_and_by_their_exit_status() {
    let origin = Origin::builder().otherwise(Reply::fresh(60, "x")).start().await;
    let token = "admin: { listen: 127.0.0.1:0, token: 0123456789abcdef }\n";
    let (open, closed) = (
        Inside::before(&origin, ADMIN).await,
        Inside::before(&origin, token).await,
    );
    open.get("/a").await;
    let at = |proxy: &Inside| format!("http://{}", proxy.admin_address());
    let (open, closed) = (at(&open), at(&closed));
    let server = origin.server();
    let table: [(&[&str], i32, &str); 25] = [
        (&["stats", "--admin", &open], 0, "route"),
        (&["stats", "--admin", &open, "--json"], 0, "\"last_1m\""),
        (
            &["inspect", "http://test/a", "--admin", &open],
            0,
            "hit; asked for once lately",
        ),
        (
            &["purge", "--prefix", "/", "--dry-run", "--admin", &open],
            0,
            "1 response would be purged",
        ),
        (
            &["purge", "--tag", "a", "--admin", &open],
            0,
            "0 responses and those of 1 tag purged",
        ),
        (
            &["purge", "http://test/a", "--soft", "--admin", &open],
            0,
            "1 response made stale",
        ),
        (
            &["purge", "http://test/a", "--after", "1h", "--admin", &open],
            0,
            "task 1-",
        ),
        (&["purge", "--admin", &open], 64, "must name something"),
        (
            &["purge", "--route", "nobody", "--admin", &open],
            64,
            "there is no route",
        ),
        (&["inspect", "http://test/b", "--admin", &open], 0, "forward (uri-miss)"),
        (&["inspect", "nonsense", "--admin", &open], 64, "must be http://"),
        (
            &["inspect", "http://test/a", "-H", "bad", "--admin", &open],
            64,
            "must be \"Name: value\"",
        ),
        (
            &["drain", "default", &server, "--admin", &open],
            0,
            "drained, 0 requests under way",
        ),
        (
            &["drain", "default", &server, "--enable", "--admin", &open],
            0,
            ": up, 0 requests",
        ),
        (&["drain", "default", "nobody:1", "--admin", &open], 1, "has no server"),
        (&["stats", "--admin", &closed], 77, "needs the token"),
        (
            &["stats", "--admin", &closed, "--token", "0123456789abcdeX"],
            77,
            "needs the token",
        ),
        (
            &["stats", "--admin", &closed, "--token", "0123456789abcdef"],
            0,
            "upstream",
        ),
        (&["stats", "--admin", "http://127.0.0.1:1"], 69, "cannot be reached"),
        (&["stats", "--admin", "127.0.0.1"], 64, "must be like"),
        // Without a terminal it is one look.
        (&["top", "--admin", &open], 0, "asked for most"),
        (&["top", "--admin", &open, "--json"], 0, "\"last_1m\""),
        (&["top", "--admin", &closed], 77, "needs the token"),
        (&["top", "--admin", "http://127.0.0.1:1"], 69, "cannot be reached"),
        (&["top", "--interval", "0", "--admin", &open], 64, "not in 1..=3600"),
    ];
    for (arguments, code, part) in table {
        let finished = forebay(arguments).await;
        assert_eq!(
            finished.code, code,
            "{arguments:?}: {}{}",
            finished.stdout, finished.stderr
        );
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}
