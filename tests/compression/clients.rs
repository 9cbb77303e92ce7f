//! The clients that people have.

use std::process::Stdio;

use tokio::process::Command;

use super::{ON, fresh_page, page};
use crate::support::client::curl;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::within;

async fn origin() -> Origin {
    let live = Reply::ok(page(60_000)).field("Content-Type", "text/css");
    Origin::builder()
        .on("/stored", fresh_page(60_000))
        .on("/live", live)
        .start()
        .await
}

#[tokio::test]
async fn curl_reads_every_coding() {
    let origin = origin().await;
    let proxy = Inside::before(&origin, ON).await;
    for coding in ["gzip", "br", "zstd"] {
        // Nobody waits for a form longer than a moment, which a busy machine may need.
        within("the form", async {
            let accepting = super::accepting(coding);
            while proxy
                .request("GET", "/stored", &accepting, b"")
                .await
                .field("content-encoding")
                != Some(coding)
            {}
        })
        .await;
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

/// Runs a program of another language with this script, and what it is to fetch as arguments. It prints what it has read, as lines of
/// `coding length sum`. `None`: the program, or what it needs, is not there.
async fn reads(
    program: &str,
    arguments: &[&str],
    script: &str,
    proxy: &Inside,
    codings: &[&str],
) -> Option<Vec<String>> {
    let output = Command::new(program)
        .args(arguments)
        .arg(script)
        .arg(format!("http://{}", proxy.address()))
        .args(codings)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let missing = match within(program, output).await {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            return Some(text.lines().map(str::to_owned).collect());
        }
        // What a script says that has not what it needs.
        Ok(output) if output.status.code() == Some(69) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Ok(output) => panic!("{program}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => error.to_string(),
    };
    assert!(
        std::env::var("FOREBAY_CLIENTS").as_deref() != Ok("required"),
        "{program}: {missing}"
    );
    eprintln!("skipped: {program} cannot be used here (make test-clients installs it): {missing}");
    None
}

/// The lines that whoever reads everything prints.
fn expected(codings: &[&str]) -> Vec<String> {
    let page = page(60_000);
    let sum = page
        .bytes()
        .fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let line = |coding: &&str| {
        (0..3)
            .map(move |_| format!("{coding} {} {sum}", 60_000))
            .collect::<Vec<_>>()
    };
    codings.iter().flat_map(line).collect()
}

#[tokio::test]
async fn fetch_of_node_reads_what_it_accepts() {
    const SCRIPT: &str = "
        const [origin, ...codings] = process.argv.slice(1);
        for (const coding of codings) for (const path of ['/live', '/stored', '/stored']) {
            const response = await fetch(origin + path, { headers: { 'accept-encoding': coding } });
            const text = await response.text();
            let sum = 0;
            for (const letter of text) sum = (Math.imul(sum, 31) + letter.charCodeAt(0)) >>> 0;
            console.log(response.headers.get('content-encoding'), text.length, sum);
        }";
    let origin = origin().await;
    let proxy = Inside::before(&origin, ON).await;
    let codings = ["gzip", "br"];
    if let Some(lines) = reads("node", &["--input-type=module", "-e"], SCRIPT, &proxy, &codings).await {
        assert_eq!(lines, expected(&codings));
    }
    // As it asks by itself.
    const PLAIN: &str = "
        const response = await fetch(process.argv[1] + '/stored');
        console.log(response.headers.get('content-encoding') !== null, (await response.text()).length);";
    if let Some(lines) = reads("node", &["--input-type=module", "-e"], PLAIN, &proxy, &[]).await {
        assert_eq!(lines, ["true 60000"]);
    }
}

#[tokio::test]
async fn httpx_of_python_reads_every_coding() {
    const SCRIPT: &str = "
import sys
try:
    import httpx, brotli, zstandard
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(69)
origin, *codings = sys.argv[1:]
with httpx.Client() as client:
    for coding in codings:
        for path in ['/live', '/stored', '/stored']:
            response = client.get(origin + path, headers={'accept-encoding': coding})
            total = 0
            for byte in response.content:
                total = (total * 31 + byte) % 2**32
            print(response.headers['content-encoding'], len(response.content), total)
";
    let origin = origin().await;
    let proxy = Inside::before(&origin, ON).await;
    let python = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let codings = ["gzip", "br", "zstd"];
    if let Some(lines) = reads(&python, &["-c"], SCRIPT, &proxy, &codings).await {
        assert_eq!(lines, expected(&codings));
    }
}
