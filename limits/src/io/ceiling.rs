//! An IO limit under another one.

use std::num::NonZeroU64;

use super::{IoLimit, IoRates};

/// A rate that is above its ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{key}={asked} is above the ceiling of {key}={ceiling}")]
pub struct AboveCeiling {
    /// `rbps`, `wbps`, `riops` or `wiops`.
    pub key: &'static str,
    /// What was asked for, per second.
    pub asked: NonZeroU64,
    /// The most, per second.
    pub ceiling: NonZeroU64,
}

impl IoLimit {
    /// This limit, with each rate that it does not give taken from `ceiling`. The disks are not compared.
    ///
    /// # Errors
    /// When one of its rates is above that of `ceiling`.
    pub fn within(&self, ceiling: IoRates) -> Result<IoLimit, AboveCeiling> {
        let rates = IoRates {
            rbps: lower("rbps", self.rates.rbps, ceiling.rbps)?,
            wbps: lower("wbps", self.rates.wbps, ceiling.wbps)?,
            riops: lower("riops", self.rates.riops, ceiling.riops)?,
            wiops: lower("wiops", self.rates.wiops, ceiling.wiops)?,
        };
        Ok(IoLimit { target: self.target.clone(), rates })
    }
}

fn lower(
    key: &'static str,
    asked: Option<NonZeroU64>,
    ceiling: Option<NonZeroU64>,
) -> Result<Option<NonZeroU64>, AboveCeiling> {
    match (asked, ceiling) {
        (Some(asked), Some(ceiling)) if asked > ceiling => Err(AboveCeiling { key, asked, ceiling }),
        (asked, ceiling) => Ok(asked.or(ceiling)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(asked: &str, ceiling: &str) -> Result<String, String> {
        let (asked, ceiling): (IoLimit, IoLimit) = (asked.parse().unwrap(), ceiling.parse().unwrap());
        asked.within(ceiling.rates()).map(|limit| limit.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_rate_is_the_lower_one_or_refused() {
        assert_eq!(within("/data:5M", "/data:10M").unwrap(), "/data:5MB");
        assert_eq!(within("/data:wiops=7", "/data:10M").unwrap(), "/data:rbps=10MB,wbps=10MB,wiops=7");
        assert_eq!(
            within("/data:10M", "/data:rbps=10M,riops=9").unwrap(),
            "/data:rbps=10MB,wbps=10MB,riops=9"
        );
        let refused = within("/data:rbps=1k,wbps=11M", "/data:10M").unwrap_err();
        assert_eq!(refused, "wbps=11000000 is above the ceiling of wbps=10000000");
        assert!(within("riops=2", "riops=1").is_err() && within("wiops=2", "wiops=1").is_err());
        assert!(within("rbps=2", "rbps=1").is_err());
    }
}
