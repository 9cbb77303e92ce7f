//! The Redis client against real servers and what networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Value, cmd, pipe};
use forebay::config::{Deployment, Password, Redis as Config, Secret, ServerAddress, WritePolicy};
use forebay::metrics::{Metrics, RedisFault, RedisOperation};
use forebay::redis::{Redis as Client, RedisError, Script};

use crate::support::fault::{Fault, FaultProxy};
use crate::support::redis::Redis;
use crate::support::{within, within_time};

/// Redis is used again this long after it is back, at the latest.
const BACK: Duration = Duration::from_secs(2);

fn config(address: SocketAddr) -> Config {
    Config {
        deployment: Deployment::Single(ServerAddress::Tcp {
            host: address.ip().to_string(),
            port: address.port(),
        }),
        tls: None,
        username: None,
        password: None,
        database: 0,
        prefix: "test:".to_owned(),
        deadline: Duration::from_millis(200),
        max_body: 1 << 20,
        max_ttl: None,
        write: WritePolicy::Behind,
        coherence_timeout: None,
    }
}

fn client(config: Config) -> (Client, Arc<Metrics>) {
    let metrics = Metrics::new();
    (Client::start(config, metrics.redis()), metrics)
}

async fn get(client: &Client, key: &str) -> Result<Value, RedisError> {
    client.run(RedisOperation::Get, cmd("GET").arg(key)).await
}

fn text(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

async fn until_away(client: &Client) {
    within("Redis to be given up", async {
        while client.is_available() {
            let _ = get(client, "k").await;
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn commands_of_many_go_together_and_each_gets_its_own_answer() {
    let redis = Redis::start().await;
    let (client, metrics) = client(config(redis.address()));
    within("a connection", client.available()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let client = client.clone();
        tasks.spawn(async move {
            let (key, value) = (format!("k{number}"), format!("v{number}"));
            client
                .run(RedisOperation::Store, cmd("SET").arg(&key).arg(&value))
                .await
                .unwrap();
            // One that is given up leaves the order of the others' answers alone.
            let _ = tokio::time::timeout(Duration::from_micros(number), get(&client, "other")).await;
            assert_eq!(get(&client, &key).await.unwrap(), text(&value));
        });
    }
    tasks.join_all().await;
    let page = String::from_utf8(metrics.render().unwrap()).unwrap();
    assert!(page.contains("forebay_redis_up 1"), "{page}");
    assert!(
        page.contains("forebay_redis_duration_seconds_count{operation=\"store\"} 200"),
        "{page}"
    );
    let clients = redis.command(&["CLIENT", "LIST"]).await;
    assert!(clients.matches("lib-name=").count() <= 3, "{clients}");
}

#[tokio::test]
async fn pipelines_scripts_and_errors() {
    let redis = Redis::start().await;
    let (client, _) = client(config(redis.address()));
    within("a connection", client.available()).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let mut commands = pipe();
    commands
        .cmd("SET")
        .arg("k")
        .arg("v")
        .arg("PX")
        .arg(5000)
        .cmd("PTTL")
        .arg("k")
        .cmd("GET")
        .arg("k");
    let answers = client.run_all(RedisOperation::Get, &commands, deadline).await.unwrap();
    assert!(matches!(answers[1], Value::Int(4000..=5000)), "{answers:?}");
    assert_eq!(answers[2], text("v"));
    static SCRIPT: Script = Script::new("return redis.call('APPEND', KEYS[1], ARGV[1])");
    for length in [3, 5] {
        let answer = client
            .run_script(RedisOperation::Limit, &SCRIPT, &[b"k"], &[b"ww"], deadline)
            .await;
        assert_eq!(answer.unwrap(), Value::Int(length));
    }
    let wrong = client.run(RedisOperation::Get, cmd("LPUSH").arg("k").arg("x")).await;
    assert_eq!(wrong.unwrap_err().fault(), RedisFault::Other);
    // One bad command among several is not taken for an answer, and does no harm to what follows.
    let mut commands = pipe();
    commands.cmd("GET").arg("k").cmd("LPUSH").arg("k").arg("x");
    client
        .run_all(RedisOperation::Get, &commands, deadline)
        .await
        .unwrap_err();
    assert_eq!(get(&client, "k").await.unwrap(), text("vwwww"));
    assert!(client.is_available());
    let server_time = client.server_time(b"k").unwrap();
    let theirs = redis.command(&["TIME"]).await;
    let theirs: u64 = theirs.lines().next().unwrap().parse().unwrap();
    assert!(server_time / 1000 <= theirs + 1 && server_time / 1000 + 5 >= theirs);
}

#[tokio::test]
async fn while_redis_is_stopped_nothing_waits_and_it_is_used_again_when_it_is_back() {
    let redis = Redis::start().await;
    let (client, _) = client(config(redis.address()));
    within("a connection", client.available()).await;
    redis.pause();
    until_away(&client).await;
    let since = Instant::now();
    assert_eq!(get(&client, "k").await.unwrap_err().fault(), RedisFault::Unavailable);
    assert!(since.elapsed() < Duration::from_millis(50));
    redis.resume();
    within_time(BACK, "Redis to be used again", client.available()).await;
    get(&client, "k").await.unwrap();
}

#[tokio::test]
async fn a_server_that_hangs_is_found_out_by_a_single_request() {
    let redis = Redis::start().await;
    let (client, _) = client(config(redis.address()));
    within("a connection", client.available()).await;
    redis.pause();
    // One for each of the two connections.
    for _ in 0..2 {
        get(&client, "k").await.unwrap_err();
    }
    within("Redis to be given up", async {
        while client.is_available() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if get(&client, "k").await.is_err() {
                continue;
            }
        }
    })
    .await;
    redis.resume();
}

#[tokio::test]
async fn a_server_that_dies_and_one_that_was_never_there() {
    let mut redis = Redis::start().await;
    let (client, metrics) = client(config(redis.address()));
    within("a connection", client.available()).await;
    redis.kill().await;
    within("the end of the connections", async {
        while client.is_available() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let page = String::from_utf8(metrics.render().unwrap()).unwrap();
    assert!(page.contains("forebay_redis_up 0"), "{page}");
    redis.restart().await;
    within_time(BACK, "Redis to be used again", client.available()).await;
}

#[tokio::test]
async fn whatever_happens_to_the_connections_it_is_used_again() {
    let redis = Redis::start().await;
    let proxy = FaultProxy::before(redis.address()).await;
    let (client, _) = client(config(proxy.address()));
    within("a connection", client.available()).await;
    client
        .run(RedisOperation::Store, cmd("SET").arg("k").arg("v"))
        .await
        .unwrap();
    let slow = Fault::Delay(Duration::from_millis(600));
    for fault in [Fault::Hang, Fault::Cut, Fault::HalfClose, Fault::Garbage, slow] {
        proxy.set(fault);
        within(&format!("{fault:?} to be noticed"), async {
            while client.is_available() {
                if let Ok(value) = get(&client, "k").await {
                    assert_eq!(value, text("v"), "{fault:?}");
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        proxy.set(Fault::None);
        within_time(BACK, "Redis to be used again", client.available()).await;
        within("a value", async {
            while get(&client, "k").await.ok() != Some(text("v")) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_new_password_is_taken_up_from_its_file() {
    let redis = Redis::start_with(&["--requirepass", "first"]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    let mut config = config(redis.address());
    config.password = Some(Password::File(file.clone()));
    let (client, _) = client(config.clone());
    within("a connection", client.available()).await;
    let command = |arguments: &[&str]| {
        let mut all = vec!["--no-auth-warning", "-a", "first"];
        all.extend(arguments);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let redis = &redis;
        async move {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            redis.command(&all).await
        }
    };
    command(&["CONFIG", "SET", "requirepass", "second"]).await;
    std::fs::write(&file, "second").unwrap();
    redis
        .command(&["--no-auth-warning", "-a", "second", "CLIENT", "KILL", "TYPE", "normal"])
        .await;
    within_time(BACK, "Redis to be used again", async {
        while get(&client, "k").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    config.password = Some(Password::Text(Secret::new("wrong".to_owned())));
    let metrics = Metrics::new();
    let refused = Client::start(config, metrics.redis());
    within("a refusal", async {
        while !String::from_utf8(metrics.render().unwrap())
            .unwrap()
            .contains("kind=\"auth\"")
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!refused.is_available());
}

#[tokio::test]
async fn dedicated_connections_block_and_listen() {
    let redis = Redis::start().await;
    let mut config = config(redis.address());
    config.deadline = Duration::from_secs(5);
    let (client, _) = client(config);
    within("a connection", client.available()).await;
    let mut blocking = client.dedicated(b"s").await.unwrap();
    let mut read = cmd("XREAD");
    read.arg("BLOCK").arg(0).arg("STREAMS").arg("s").arg("$");
    let waiting = tokio::spawn(async move { blocking.run(&read).await });
    let (sender, mut messages) = tokio::sync::mpsc::unbounded_channel();
    let mut listening = client.listening(sender).await.unwrap();
    listening.run(cmd("SUBSCRIBE").arg("news")).await.unwrap();
    within("a listener", async {
        while redis.command(&["PUBLISH", "news", "hello"]).await != "1" {}
    })
    .await;
    within("the message", async {
        loop {
            let message = messages.recv().await.unwrap();
            if message.data.contains(&text("hello")) {
                return;
            }
        }
    })
    .await;
    within("a blocked client", async {
        while !redis.command(&["INFO", "clients"]).await.contains("blocked_clients:1") {}
    })
    .await;
    client
        .run(RedisOperation::Purge, cmd("XADD").arg("s").arg("*").arg("a").arg("b"))
        .await
        .unwrap();
    within("the entry", waiting).await.unwrap().unwrap();
}
