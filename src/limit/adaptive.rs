//! How many requests in flight are good, found out by the latency: the gradient of what it is without a queue to what it is now.
//!
//! As long as the latency is near its best, the limit grows by the square root of itself, which is the queue that is let stand; when it
//! gets slower, the limit shrinks as much as it got slower, at most by half. The best is what was seen, and at the lowest limit what is
//! seen: there the queue is not of our making.

use std::time::Duration;

/// So much slower than at best is no sign yet.
const TOLERANCE: f64 = 1.5;

/// The most that it shrinks at once.
const STEEPEST: f64 = 0.5;

/// The weight of a new limit beside the one before, and of a request's latency beside those before it.
const SMOOTHING: f64 = 0.2;
const LATENCY_SMOOTHING: f64 = 0.05;

/// How fast the best is given up at the lowest limit.
const FORGETTING: f64 = 0.01;

/// A limit that follows the latency.
#[derive(Debug, Clone)]
pub struct Gradient {
    min: f64,
    max: f64,
    limit: f64,
    /// Seconds, smoothed. `None`: none has been seen.
    latency: Option<f64>,
    best: f64,
}

impl Gradient {
    pub fn new(min: usize, max: usize) -> Self {
        let max = max.max(1) as f64;
        let min = (min.max(1) as f64).min(max);
        Self {
            min,
            max,
            // It grows fast, and what it should be is not known.
            limit: min,
            latency: None,
            best: f64::MAX,
        }
    }

    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// A request has taken so long, while so many were in flight.
    pub fn observe(&mut self, latency: Duration, in_flight: usize) {
        let seen = latency.as_secs_f64().max(1e-6);
        let latency = match self.latency {
            Some(before) => before + (seen - before) * LATENCY_SMOOTHING,
            None => seen,
        };
        self.latency = Some(latency);
        if latency < self.best {
            self.best = latency;
        } else if self.limit <= self.min {
            self.best += (latency - self.best) * FORGETTING;
        }
        // What is not used up says nothing about more.
        if (in_flight as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * self.best / latency).clamp(STEEPEST, 1.0);
        let next = self.limit * gradient + self.limit.sqrt();
        self.limit = (self.limit * (1.0 - SMOOTHING) + next * SMOOTHING).clamp(self.min, self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with so many workers: what is more waits in its queue.
    fn latency(workers: usize, in_flight: usize) -> Duration {
        Duration::from_millis(10).mul_f64((in_flight as f64 / workers as f64).max(1.0))
    }

    #[test]
    fn it_finds_what_a_server_can_do_and_follows_it() {
        let mut gradient = Gradient::new(5, 1000);
        let run = |gradient: &mut Gradient, workers: usize| {
            for _ in 0..3000 {
                let in_flight = gradient.limit();
                gradient.observe(latency(workers, in_flight), in_flight);
            }
            gradient.limit()
        };
        let found = run(&mut gradient, 100);
        assert!((90..=400).contains(&found), "{found}");
        let less = run(&mut gradient, 20);
        assert!(less < found, "{less} after {found}");
        assert!(gradient.limit() >= 5);
    }

    #[test]
    fn idle_times_say_nothing() {
        let mut gradient = Gradient::new(10, 1000);
        for _ in 0..1000 {
            gradient.observe(Duration::from_millis(1), 1);
        }
        assert_eq!(gradient.limit(), 10);
    }
}
