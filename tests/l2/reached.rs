//! How Redis is reached: over TLS, by its socket, as a user that may do little, in another database.

use std::path::Path;

use forebay::cache::coherence::Recorded;
use forebay::cache::purge::What;

use crate::support::certificate::Certificate;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::redis::{Cluster, Redis, port_of, reserve_port};
use crate::support::within;

async fn instance(origin: &Origin, redis: &str) -> Inside {
    let sections =
        format!("cache: {{ redis: {{ {redis}, write: through }} }}\ndefaults: {{ cache: {{ collapse: cluster }} }}\n");
    Inside::before(origin, &sections).await
}

/// Everything that instances do with Redis, done with these keys of `cache.redis`.
async fn all_works(redis: &str) {
    let origin = Origin::builder()
        .answering(|request| match request.field("accept-language") {
            None => Reply::fresh(60, "kept").field("Cache-Tag", "a"),
            Some(language) => Reply::fresh(60, language.to_owned()).field("Vary", "Accept-Language"),
        })
        .start()
        .await;
    let both = [instance(&origin, redis).await, instance(&origin, redis).await];
    for proxy in &both {
        for gauge in ["forebay_redis_up", "forebay_coherence_followed", "forebay_leases_heard"] {
            proxy.metric_becomes(gauge, &[], 1.0).await;
        }
    }
    for (language, text) in [(None, "kept"), (Some(("Accept-Language", "de")), "de")] {
        let target = if language.is_none() { "/a" } else { "/b" };
        let fields: Vec<_> = language.into_iter().collect();
        for (proxy, status) in both.iter().zip(["fwd=uri-miss", "hit"]) {
            let response = proxy.request("GET", target, &fields, b"").await;
            assert_eq!(response.text(), text);
            assert!(
                response.cache_status().starts_with(status),
                "{}",
                response.cache_status()
            );
        }
    }
    assert_eq!(origin.request_count(), 2);
    assert_eq!(both[0].purge_for_all(What::tags(["a"])).await, Recorded::InLog);
    within("the purge elsewhere", async {
        while both[1].get("/a").await.cache_status().starts_with("hit") {}
    })
    .await;
    // Scripts are sent when the server does not know them.
    let errors = both[1].metric("forebay_redis_errors_total", &[]).await;
    let unknown = both[1]
        .metric("forebay_redis_errors_total", &[("kind", "noscript")])
        .await;
    assert_eq!(errors, unknown);
}

/// The port for TLS, kept until the server has it, and the arguments that say so.
fn tls_arguments(certificate: &Certificate, directory: &Path) -> (socket2::Socket, Vec<String>) {
    let (pem, key) = certificate.write(directory, "redis");
    let reserved = reserve_port();
    let port = port_of(&reserved).to_string();
    let arguments = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        pem.to_str().unwrap(),
        "--tls-key-file",
        key.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ];
    (reserved, arguments.map(str::to_owned).to_vec())
}

/// A server that speaks TLS, and its port.
async fn over_tls(certificate: &Certificate, directory: &Path) -> (Redis, u16) {
    let (reserved, arguments) = tls_arguments(certificate, directory);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    (Redis::start_with(&arguments).await, port_of(&reserved))
}

#[tokio::test]
async fn over_tls_with_an_authority_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = Certificate::for_names(&["redis.test"]);
    let (_redis, port) = over_tls(&certificate, directory.path()).await;
    let ca = directory.path().join("redis.pem");
    let url = format!("url: \"rediss://127.0.0.1:{port}/2\"");
    all_works(&format!(
        "{url}, tls: {{ ca: {}, server_name: redis.test }}",
        ca.display()
    ))
    .await;
    // Another database, which has nothing of it yet.
    let url = format!("url: \"rediss://127.0.0.1:{port}/3\"");
    all_works(&format!("{url}, tls: {{ verify: false }}")).await;
}

#[tokio::test]
async fn who_is_not_who_he_says_gets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = Certificate::for_names(&["redis.test"]);
    let (redis, port) = over_tls(&certificate, directory.path()).await;
    let (other, _) = Certificate::for_names(&["redis.test"]).write(directory.path(), "other");
    let ca = directory.path().join("redis.pem");
    let origin = Origin::builder().otherwise(Reply::fresh(60, "kept")).start().await;
    for (ca, name) in [(&other, "redis.test"), (&ca, "other.test")] {
        let tls = format!("tls: {{ ca: {}, server_name: {name} }}", ca.display());
        let proxy = instance(&origin, &format!("url: \"rediss://127.0.0.1:{port}\", {tls}")).await;
        let labels = [("operation", "connect"), ("kind", "connection")];
        within("attempts that fail", async {
            while proxy.metric("forebay_redis_errors_total", &labels).await < 2.0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(proxy.metric("forebay_redis_up", &[]).await, 0.0);
        assert_eq!(proxy.get("/a").await.text(), "kept");
    }
    assert_eq!(redis.command(&["DBSIZE"]).await, "0");
}

#[tokio::test]
async fn by_its_socket_in_a_database_of_its_own() {
    let redis = Redis::start().await;
    all_works(&format!("url: \"unix:{}?db=3\"", redis.socket().display())).await;
    let keys = redis.command(&["INFO", "keyspace"]).await;
    assert!(keys.contains("db3:") && !keys.contains("db0:"), "{keys}");
}

/// As the README says.
#[tokio::test]
async fn as_a_user_that_may_do_what_is_needed() {
    let redis = Redis::start().await;
    let rules = rules_of_the_readme();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    assert_eq!(redis.command(&rules).await, "OK");
    redis.command(&["ACL", "SETUSER", "default", "off"]).await;
    let address = redis.address();
    all_works(&format!("url: \"redis://forebay:secret@{address}/1\", prefix: \"t:\"")).await;
    all_works(&format!(
        "url: \"redis://forebay@{address}\", password: secret, prefix: \"t:\""
    ))
    .await;
}

fn rules_of_the_readme() -> Vec<String> {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let (_, rest) = readme.split_once("and these\ncommands: ").unwrap();
    let (list, _) = rest.split_once(". The password").unwrap();
    let mut rules: Vec<String> = ["ACL", "SETUSER", "forebay", "on", ">secret", "~t:*", "&t:*", "-@all"]
        .map(str::to_owned)
        .to_vec();
    let named = list.split('`').skip(1).step_by(2);
    rules.extend(named.map(|name| format!("+{}", name.to_ascii_lowercase())));
    rules
}

/// The nodes announce themselves by their addresses; what they have to show is another name.
#[tokio::test]
async fn a_cluster_over_tls_as_a_user_that_may_do_what_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = Certificate::for_names(&["redis.test"]);
    let each = [(); 3].map(|()| tls_arguments(&certificate, directory.path()));
    let pem = directory.path().join("redis.pem").display().to_string();
    let arguments = each.each_ref().map(|(_, arguments)| {
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // So that nodes announce their ports for TLS.
        arguments.extend(["--tls-cluster", "yes", "--tls-ca-cert-file", &pem]);
        arguments
    });
    let cluster = Cluster::start_each(arguments.each_ref().map(Vec::as_slice)).await;
    let rules = rules_of_the_readme();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    for node in &cluster.nodes {
        assert_eq!(node.command(&rules).await, "OK");
    }
    let port = port_of(&each[0].0);
    for (prefix, tls) in [
        ("t:", format!("ca: {pem}, server_name: redis.test")),
        ("t:other:", "verify: false".to_owned()),
    ] {
        let url = format!("rediss+cluster://forebay:secret@127.0.0.1:{port}");
        all_works(&format!("url: \"{url}\", prefix: \"{prefix}\", tls: {{ {tls} }}")).await;
    }
}
