//! Pauses between attempts.

use std::time::Duration;

use rand::Rng;

/// Pauses that double with every failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl Backoff {
    /// Returns the pause after `failures` failures.
    pub fn pause(self, failures: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(self.longest)
    }

    /// Returns a random part of [`Backoff::pause`], at least half of it, so that many clients do not return at the same moment.
    pub fn jittered(self, failures: u32) -> Duration {
        self.pause(failures).mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Returns the same pauses, each `factor` times as long.
    pub fn times(self, factor: u32) -> Self {
        Self { first: self.first.saturating_mul(factor), longest: self.longest.saturating_mul(factor) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_millis(1600) };
        let pauses = [0, 1, 2, 3, 6, 7, 33, u32::MAX].map(|failures| backoff.pause(failures).as_millis());
        assert_eq!(pauses, [50, 50, 100, 200, 1600, 1600, 1600, 1600]);
        assert_eq!(backoff.times(4).pause(9), Duration::from_millis(6400));
        for _ in 0..100 {
            assert!((100..=200).contains(&backoff.jittered(3).as_millis()));
        }
    }
}
