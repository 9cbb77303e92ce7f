//! Which requests are logged.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::config;

/// A share of requests or a duration that is never reached.
const NEVER: u64 = u64::MAX;

/// Which requests are logged. Changed by a reload while requests read it, so each value stands alone.
#[derive(Debug)]
pub(super) struct Policy {
    /// A hash of a request id below this is in the sample; [`NEVER`] is all of them.
    sample: AtomicU64,
    /// Nanoseconds; [`NEVER`] where no request is slow.
    slow: AtomicU64,
    on: AtomicBool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            sample: AtomicU64::new(0),
            slow: AtomicU64::new(NEVER),
            on: AtomicBool::new(false),
        }
    }
}

impl Policy {
    pub(super) fn set(&self, config: Option<&config::AccessLog>) {
        if let Some(config) = config {
            // Saturates: 1.0 is the whole range.
            let sample = (config.sample * u64::MAX as f64) as u64;
            self.sample.store(sample, Ordering::Relaxed);
            self.slow.store(config.slow.map_or(NEVER, nanos), Ordering::Relaxed);
        }
        self.on.store(config.is_some(), Ordering::Relaxed);
    }

    pub(super) fn wants(&self, request_id: &[u8], status: u16, took: Duration) -> bool {
        self.on.load(Ordering::Relaxed) && (status >= 500 || self.is_slow(took) || self.samples(request_id))
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        nanos(took) > self.slow.load(Ordering::Relaxed)
    }

    fn samples(&self, request_id: &[u8]) -> bool {
        match self.sample.load(Ordering::Relaxed) {
            NEVER => true,
            sample => hash(request_id) < sample,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(NEVER)
}

/// FNV-1a, and the final mix of MurmurHash3, because ids that are counted up differ in their last bytes only. The same for every
/// process and version.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> config::AccessLog {
        config::AccessLog {
            format: config::AccessFormat::Json,
            path: config::LogPath::Stdout,
            sample: 1.0,
            slow: None,
        }
    }

    #[test]
    fn which_requests_are_logged() {
        let ms = Duration::from_millis;
        for (sample, slow, status, took, expected) in [
            (1.0, None, 200, Duration::MAX, true),
            (0.0, None, 200, Duration::MAX, false),
            (0.0, None, 499, Duration::MAX, false),
            (0.0, None, 500, ms(1), true),
            (0.0, Some(ms(10)), 200, ms(10), false),
            (0.0, Some(ms(10)), 200, ms(11), true),
        ] {
            let policy = Policy::default();
            policy.set(Some(&config::AccessLog {
                sample,
                slow,
                ..config()
            }));
            assert_eq!(
                policy.wants(b"id", status, took),
                expected,
                "{sample} {slow:?} {status} {took:?}"
            );
        }
    }

    #[test]
    fn a_sample_is_a_fair_share_and_always_the_same() {
        let policy = Policy::default();
        policy.set(Some(&config::AccessLog {
            sample: 0.1,
            ..config()
        }));
        let sampled = || {
            (0..10_000)
                .filter(|id| policy.wants(id.to_string().as_bytes(), 200, Duration::ZERO))
                .collect::<Vec<_>>()
        };
        assert!((900..1100).contains(&sampled().len()), "{}", sampled().len());
        assert_eq!(sampled(), sampled());
    }
}
