//! A name server on a free port that says what it is told.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::watched::Watched;

/// What is said to questions about one name.
#[derive(Debug, Clone)]
pub enum Records {
    Addresses(Vec<IpAddr>),
    /// Priority, weight, port, target.
    Services(Vec<(u16, u16, u16, &'static str)>),
    /// SERVFAIL.
    Broken,
}

/// A name server. What it has not been told of does not exist (NXDOMAIN).
pub struct Dns {
    pub address: SocketAddr,
    records: Arc<Mutex<HashMap<String, Records>>>,
    questions: Watched<usize>,
    serving: JoinHandle<()>,
}

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

impl Dns {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let records: Arc<Mutex<HashMap<String, Records>>> = Arc::default();
        let questions: Watched<usize> = Watched::default();
        let (told, asked) = (records.clone(), questions.clone());
        let serving = tokio::spawn(async move {
            let mut packet = [0; 1500];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut packet).await else {
                    continue;
                };
                let response = answer(&packet[..length], &told.lock().unwrap());
                asked.change(|count| *count += 1);
                if let Some(response) = response {
                    let _ = socket.send_to(&response, from).await;
                }
            }
        });
        Self {
            address,
            records,
            questions,
            serving,
        }
    }

    pub fn say(&self, name: &str, records: Records) {
        self.records.lock().unwrap().insert(name.to_owned(), records);
    }

    pub fn addresses(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.say(name, Records::Addresses(addresses));
    }

    pub fn forget(&self, name: &str) {
        self.records.lock().unwrap().remove(name);
    }

    /// Waits until it has been asked so many more times.
    pub async fn asked_again(&self, times: usize) {
        let before = self.questions.read(|count| *count);
        let wanted = before + times;
        self.questions
            .wait_for("questions", move |count| *count >= wanted)
            .await;
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A response to a query (RFC 1035 §4.1). `None`: it is none.
fn answer(query: &[u8], records: &HashMap<String, Records>) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let asked = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = &query[12..at + 4];
    let name = name.join(".");
    let mut answers: Vec<Vec<u8>> = Vec::new();
    let mut code = 0;
    match records.get(&name) {
        None => code = 3,
        Some(Records::Broken) => code = 2,
        Some(Records::Addresses(addresses)) => {
            for address in addresses {
                match (address, asked) {
                    (IpAddr::V4(ip), A) => answers.push(record(A, &ip.octets())),
                    (IpAddr::V6(ip), AAAA) => answers.push(record(AAAA, &ip.octets())),
                    _ => {}
                }
            }
        }
        Some(Records::Services(services)) if asked == SRV => {
            for (priority, weight, port, target) in services {
                let mut data = Vec::new();
                for number in [priority, weight, port] {
                    data.extend(number.to_be_bytes());
                }
                for label in target.split('.') {
                    data.push(label.len() as u8);
                    data.extend(label.as_bytes());
                }
                data.push(0);
                answers.push(record(SRV, &data));
            }
        }
        Some(Records::Services(_)) => {}
    }
    let mut response = query[..2].to_vec();
    // A response, with recursion; one question, so many answers.
    response.extend([0x81, 0x80 | code]);
    response.extend([0, 1]);
    response.extend((answers.len() as u16).to_be_bytes());
    response.extend([0, 0, 0, 0]);
    response.extend(question);
    response.extend(answers.concat());
    Some(response)
}

/// A record of the name in the question, for a second.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 12];
    record.extend(kind.to_be_bytes());
    record.extend([0, 1, 0, 0, 0, 1]);
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}
