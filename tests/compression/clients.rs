//! The clients that people have.

use super::{ON, fresh_page, page};
use crate::support::client::curl;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};

#[tokio::test]
async fn curl_reads_every_coding() {
    let live = Reply::ok(page(60_000)).field("Content-Type", "text/css");
    let origin = Origin::builder()
        .on("/stored", fresh_page(60_000))
        .on("/live", live)
        .start()
        .await;
    let proxy = Inside::before(&origin, ON).await;
    for coding in ["gzip", "br", "zstd"] {
        for path in ["/live", "/stored", "/stored"] {
            let url = format!("http://{}{path}", proxy.address());
            let accept = format!("Accept-Encoding: {coding}");
            let got = curl(&["--compressed", "-H", &accept, &url]).await;
            assert_eq!((got.exit, got.status), (0, 200), "{coding}: {}", got.stderr);
            assert_eq!(got.field("content-encoding"), Some(coding));
            assert_eq!(got.text(), page(60_000), "{coding} {path}");
        }
    }
}
