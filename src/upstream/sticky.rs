//! Keeping a client at its server: a cookie of our own that names the server to us, and nothing to anybody else.
//!
//! Its value is base64url of `nonce ‖ expiry ‖ server ‖ tag`. The server's id is masked with a keyed hash of the nonce and the expiry,
//! the tag is an HMAC-SHA256 over all of it and the upstream's name, so that nobody can make one, and every instance with the same
//! secret understands it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::ServerId;
use crate::config::{self, SameSite};
use crate::message::Fields;

/// How long a cookie without `ttl` is believed; the browser drops it when it ends, if it ever does.
const SESSION: Duration = Duration::from_secs(24 * 3600);

/// Bytes of a mask, a nonce, an expiry or a server's id.
const WORD: usize = 8;

/// Bytes of an HMAC-SHA256.
const TAG: usize = 32;

const TOKEN: usize = 3 * WORD + TAG;

/// What a cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub server: ServerId,
    /// Seconds since 1970.
    expires: u64,
}

/// The cookie of one upstream.
pub struct Sticky {
    config: config::Sticky,
    upstream: String,
    key: hmac::Key,
}

impl std::fmt::Debug for Sticky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sticky")
            .field("cookie", &self.config.cookie)
            .finish_non_exhaustive()
    }
}

impl Sticky {
    pub fn new(config: &config::Sticky, upstream: &str) -> Self {
        let key = match &config.secret {
            Some(secret) => hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes()),
            None => {
                tracing::warn!(
                    upstream,
                    "sticky.secret is empty: clients lose their servers at a restart, and at other instances"
                );
                let mut secret = [0; TAG];
                if SystemRandom::new().fill(&mut secret).is_err() {
                    // Without the system's randomness there would be no TLS either; this is still not to be guessed from outside.
                    secret.fill_with(|| fastrand::u8(..));
                }
                hmac::Key::new(hmac::HMAC_SHA256, &secret)
            }
        };
        Self {
            config: config.clone(),
            upstream: upstream.to_owned(),
            key,
        }
    }

    /// What it was made from.
    pub fn config(&self) -> &config::Sticky {
        &self.config
    }

    /// What a cookie says at `now`. `None`: it is not one of ours, or no longer.
    pub fn read(&self, value: &[u8], now: SystemTime) -> Option<Token> {
        let token = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (told, tag) = token.split_at_checked(TOKEN - TAG)?;
        hmac::verify(&self.key, &self.authenticated(told), tag).ok()?;
        let (nonce, rest) = told.split_first_chunk::<WORD>()?;
        let (expires, masked) = rest.split_first_chunk::<WORD>()?;
        let masked: [u8; WORD] = masked.try_into().ok()?;
        let token = Token {
            server: ServerId(u64::from_be_bytes(masked) ^ self.mask(*nonce, *expires)),
            expires: u64::from_be_bytes(*expires),
        };
        (token.expires > seconds(now)).then_some(token)
    }

    /// Whether a client needs another cookie to come to this server for the next while.
    pub fn is_due(&self, token: Option<Token>, server: ServerId, now: SystemTime) -> bool {
        token.is_none_or(|token| {
            token.server != server || token.expires.saturating_sub(seconds(now)) < self.lifetime().as_secs() / 2
        })
    }

    /// The value of `Set-Cookie` (RFC 6265 §4.1) that brings a client back to this server.
    pub fn set_cookie(&self, server: ServerId, now: SystemTime) -> String {
        let config::Sticky {
            cookie,
            ttl,
            secure,
            same_site,
            path,
            ..
        } = &self.config;
        let mut text = format!("{cookie}={}; Path={path}", self.token(server, now));
        if let Some(ttl) = ttl {
            text.push_str(&format!("; Max-Age={}", ttl.as_secs().max(1)));
        }
        text.push_str("; HttpOnly");
        if *secure {
            text.push_str("; Secure");
        }
        text.push_str(match same_site {
            SameSite::Lax => "; SameSite=Lax",
            SameSite::Strict => "; SameSite=Strict",
            SameSite::None => "; SameSite=None",
        });
        text
    }

    fn token(&self, server: ServerId, now: SystemTime) -> String {
        let nonce = fastrand::u64(..).to_be_bytes();
        let expires = seconds(now)
            .saturating_add(self.lifetime().as_secs().max(1))
            .to_be_bytes();
        let masked = (server.0 ^ self.mask(nonce, expires)).to_be_bytes();
        let mut token = Vec::with_capacity(TOKEN);
        for word in [nonce, expires, masked] {
            token.extend_from_slice(&word);
        }
        let tag = hmac::sign(&self.key, &self.authenticated(&token));
        token.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(token)
    }

    fn lifetime(&self) -> Duration {
        self.config.ttl.unwrap_or(SESSION)
    }

    /// What the tag is over. The words have a fixed length, so the name cannot run into them.
    fn authenticated(&self, told: &[u8]) -> Vec<u8> {
        [b"tag", told, self.upstream.as_bytes()].concat()
    }

    /// Differs with every cookie: two of them do not tell whether they name the same server.
    fn mask(&self, nonce: [u8; WORD], expires: [u8; WORD]) -> u64 {
        let hash = hmac::sign(&self.key, &[b"mask", &nonce[..], &expires].concat());
        match hash.as_ref().first_chunk() {
            Some(word) => u64::from_be_bytes(*word),
            None => 0,
        }
    }
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Takes cookies of these names out of a request; the others stay as they are, byte for byte. What was taken: names and values.
pub fn take(fields: &mut Fields, names: &[String]) -> Vec<(String, Vec<u8>)> {
    let mut taken = Vec::new();
    let mut left = Vec::new();
    for line in fields.get_all("cookie") {
        let mut kept: Vec<&[u8]> = Vec::new();
        for pair in line.split(|byte| *byte == b';') {
            let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &[][..]),
            };
            match names.iter().find(|ours| ours.as_bytes() == name.trim_ascii()) {
                Some(ours) => taken.push((ours.clone(), value.trim_ascii().to_vec())),
                None => kept.push(pair),
            }
        }
        let line = kept.join(&b';');
        if !line.trim_ascii().is_empty() {
            left.push(line.trim_ascii_start().to_vec());
        }
    }
    if !taken.is_empty() {
        fields.remove("cookie");
        for line in left {
            fields.push("Cookie", line);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use proptest::prelude::*;

    const SERVER: ServerId = ServerId(0x0123_4567_89ab_cdef);

    fn sticky(secret: &str, upstream: &str) -> Sticky {
        let config = config::Sticky {
            cookie: "forebay_server".to_owned(),
            ttl: Some(Duration::from_secs(3600)),
            secure: true,
            same_site: SameSite::Lax,
            path: "/".to_owned(),
            secret: Some(Secret::new(secret)),
        };
        Sticky::new(&config, upstream)
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn value(sticky: &Sticky) -> String {
        let text = sticky.set_cookie(SERVER, at(0));
        let value = text.strip_prefix("forebay_server=").unwrap().split(';').next().unwrap();
        value.to_owned()
    }

    #[test]
    fn every_instance_with_the_secret_understands_it_until_it_ends() {
        let (here, there) = (sticky("s", "app"), sticky("s", "app"));
        let text = here.set_cookie(SERVER, at(0));
        assert!(
            text.ends_with("; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"),
            "{text}"
        );
        let value = value(&here);
        let token = there.read(value.as_bytes(), at(0)).unwrap();
        assert_eq!(token.server, SERVER);
        assert!(!there.is_due(Some(token), SERVER, at(0)));
        assert!(there.is_due(Some(token), ServerId(1), at(0)), "another server answered");
        assert!(there.is_due(Some(token), SERVER, at(1801)), "it ends soon");
        assert!(there.is_due(None, SERVER, at(0)));
        assert!(there.read(value.as_bytes(), at(3599)).is_some());
        assert_eq!(there.read(value.as_bytes(), at(3600)), None, "expired");
        assert_eq!(sticky("other", "app").read(value.as_bytes(), at(0)), None);
        assert_eq!(
            sticky("s", "web").read(value.as_bytes(), at(0)),
            None,
            "another upstream's"
        );
        assert!(!value.contains(&URL_SAFE_NO_PAD.encode(SERVER.0.to_be_bytes())));
        assert_ne!(value, self::value(&here), "two do not look the same");
    }

    #[test]
    fn our_cookies_are_taken_and_the_others_stay() {
        let names = ["ours".to_owned()];
        for (lines, left, taken) in [
            (vec!["a=1; b=2"], vec!["a=1; b=2"], vec![]),
            (vec!["ours=x"], vec![], vec!["x"]),
            (vec!["ours=x; a=1"], vec!["a=1"], vec!["x"]),
            (vec!["a=1; ours=x"], vec!["a=1"], vec!["x"]),
            (vec!["a=\"1\";ours=x;  b=2=3 ;c"], vec!["a=\"1\";  b=2=3 ;c"], vec!["x"]),
            (vec!["a=1", "ours=x", "b=2"], vec!["a=1", "b=2"], vec!["x"]),
            (vec!["ours=x; ours=y; not_ours=z"], vec!["not_ours=z"], vec!["x", "y"]),
            (vec!["a=ours=x"], vec!["a=ours=x"], vec![]),
        ] {
            let mut fields = Fields::new();
            for line in &lines {
                fields.push("Cookie", line);
            }
            let found: Vec<_> = take(&mut fields, &names).into_iter().map(|(_, value)| value).collect();
            assert_eq!(
                found,
                taken.iter().map(|value| value.as_bytes()).collect::<Vec<_>>(),
                "{lines:?}"
            );
            let rest: Vec<_> = fields
                .get_all("cookie")
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect();
            assert_eq!(rest, left, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_forged_is_believed(bytes in proptest::collection::vec(any::<u8>(), 0..80), at_byte in 0..75_usize, bit in 0..8_u32) {
            let sticky = sticky("s", "app");
            prop_assert_eq!(sticky.read(&bytes, at(0)), None);
            prop_assert_eq!(sticky.read(URL_SAFE_NO_PAD.encode(&bytes).as_bytes(), at(0)), None);
            let mut token = URL_SAFE_NO_PAD.decode(value(&sticky)).unwrap();
            let index = at_byte % token.len();
            token[index] ^= 1 << bit;
            prop_assert_eq!(sticky.read(URL_SAFE_NO_PAD.encode(token).as_bytes(), at(0)), None);
        }
    }
}
