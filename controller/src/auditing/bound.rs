//! How sure one can be of a share that was seen in a sample.

use statrs::distribution::{Beta, ContinuousCDF};

/// The share that is not exceeded with this confidence (both 0 to 1) if `share` of `n` independent draws, 0 or more and
/// not necessarily whole, had the property: the upper bound of Clopper and Pearson (Biometrika 26, 1934), which is
/// never too low.
pub fn at_most(share: f64, n: f64, confidence: f64) -> f64 {
    let (with, without) = (share * n + 1.0, (1.0 - share) * n);
    // nothing is known, or all have it
    if without <= 0.0 {
        return 1.0;
    }
    Beta::new(with, without).map_or(1.0, |b| b.inverse_cdf(confidence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        // none of n: 1 - 0.05^(1/n), the "rule of three"
        assert!((at_most(0.0, 1000.0, 0.95) - (1.0 - 0.05f64.powf(1e-3))).abs() < 1e-6);
        // Clopper and Pearson, one-sided: 2 of 20 at 95 % is 0.2826
        assert!((at_most(0.1, 20.0, 0.95) - 0.2826).abs() < 1e-4);
        assert!((at_most(0.5, 10.0, 0.95) - 0.7776).abs() < 1e-4);
        assert_eq!(at_most(1.0, 10.0, 0.95), 1.0);
        assert_eq!(at_most(0.0, 0.0, 0.95), 1.0);
        assert!(at_most(0.0, 100.0, 0.99) > at_most(0.0, 100.0, 0.95));
    }
}
