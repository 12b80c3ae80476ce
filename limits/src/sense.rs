//! Limits that are right and probably not what was meant.

use std::fmt::Display;

use nix::unistd::{SysconfVar, sysconf};

use crate::{IoLimit, Limits};

/// Below this a disk's bandwidth is too small to load a program by, in bytes per second.
const LOW_BPS: u64 = 64 << 10;

/// Below this a disk's operations are too few to load a program by, in operations per second.
const LOW_IOPS: u64 = 10;

/// What a host has to share out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSize {
    /// CPUs that are online.
    pub cpus: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

impl HostSize {
    /// This host's. What can't be found out is without end, so that nobody is warned for nothing.
    pub fn of_this_host() -> Self {
        let known = |variable| sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok());
        let pages = known(SysconfVar::_PHYS_PAGES).zip(known(SysconfVar::PAGE_SIZE));
        Self {
            cpus: known(SysconfVar::_NPROCESSORS_ONLN).unwrap_or(u64::MAX),
            memory_bytes: pages.map_or(u64::MAX, |(pages, bytes)| pages.saturating_mul(bytes)),
        }
    }
}

impl Limits {
    /// What of these limits probably was not meant on such a host, in words that name the field and the value: what has
    /// no effect, and disk rates that slow down to a standstill.
    pub fn warnings(&self, host: HostSize) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(cpu) = self.cpu.filter(|cpu| u64::from(cpu.milli_cpus()) > host.cpus.saturating_mul(1000))
        {
            let words =
                format!("{cpu} CPUs are more than the {} of the host, so it limits nothing", host.cpus);
            warnings.push(warning("cpu", words));
        }
        for (field, memory) in [("memory", self.memory), ("memory_high", self.memory_high)] {
            if let Some(memory) = memory.filter(|memory| memory.bytes() > host.memory_bytes) {
                let words = format!(
                    "{memory} are more than the {} bytes of the host, so it limits nothing",
                    host.memory_bytes
                );
                warnings.push(warning(field, words));
            }
        }
        if let (Some(high), Some(memory)) = (self.memory_high, self.memory)
            && high >= memory
        {
            let words = format!("{high} is not below the memory limit of {memory}, so it slows nothing down");
            warnings.push(warning("memory_high", words));
        }
        warnings.extend(self.io.iter().filter_map(low_rates));
        warnings
    }
}

fn warning(field: &str, words: impl Display) -> String {
    format!("spec.limits.{field}: {words}")
}

/// What of one limit is too low, together.
fn low_rates(limit: &IoLimit) -> Option<String> {
    let rates = limit.rates();
    let low = [
        (rates.rbps(), LOW_BPS, "bytes read"),
        (rates.wbps(), LOW_BPS, "bytes written"),
        (rates.riops(), LOW_IOPS, "read operations"),
        (rates.wiops(), LOW_IOPS, "write operations"),
    ];
    let low =
        low.into_iter().filter_map(|(rate, low, what)| Some((rate.filter(|rate| rate.get() < low)?, what)));
    let low: Vec<_> = low.map(|(rate, what)| format!("{rate} {what}")).collect();
    (!low.is_empty()).then(|| {
        let words = format!(
            "{limit} allows only {} per second; with less than 64KiB or 10 operations hardly any program gets along",
            low.join(" and ")
        );
        warning("io", words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostSize = HostSize { cpus: 2, memory_bytes: 1 << 30 };

    fn warnings(json: &str) -> Vec<String> {
        serde_json::from_str::<Limits>(json).expect(json).warnings(HOST)
    }

    #[test]
    fn more_than_the_host_has_limits_nothing() {
        let expected = "spec.limits.cpu: 512 CPUs are more than the 2 of the host, so it limits nothing";
        assert_eq!(warnings(r#"{"cpu": "512"}"#), [expected]);
        assert!(warnings(r#"{"cpu": "2001m"}"#)[0].contains("2.001 CPUs"));
        assert!(warnings(r#"{"memory": "2GiB"}"#)[0].starts_with("spec.limits.memory: 2GiB"));
        let high = warnings(r#"{"memory_high": "64MiB", "memory": "64MiB"}"#);
        assert!(high.len() == 1 && high[0].starts_with("spec.limits.memory_high: 64MiB"), "{high:?}");
        for fine in
            [r#"{"cpu": "2", "memory": "1GiB"}"#, r#"{"memory_high": "63MiB", "memory": "64MiB"}"#, "{}"]
        {
            assert!(warnings(fine).is_empty(), "{fine}");
        }
    }

    #[test]
    fn disk_rates_that_stop_everything() {
        let expected = "spec.limits.io: /:500B allows only 500 bytes read and 500 bytes written per second; \
                        with less than 64KiB or 10 operations hardly any program gets along";
        assert_eq!(warnings(r#"{"io": ["/:500"]}"#), [expected]);
        for (io, low) in [
            ("/:rbps=65535,wbps=65536", "only 65535 bytes read per second"),
            ("/:riops=9,wiops=10", "only 9 read operations per second"),
            ("wbps=1G,wiops=1", "only 1 write operations per second"),
        ] {
            let told = warnings(&format!(r#"{{"io": ["{io}"]}}"#));
            assert!(told.len() == 1 && told[0].contains(low), "{told:?}");
        }
        assert!(warnings(r#"{"io": ["/:64KiB", "/data:riops=10,wiops=10"]}"#).is_empty());
        assert_eq!(warnings(r#"{"io": ["/:1k", "/data:1k"]}"#).len(), 2, "each disk's");
    }

    #[test]
    fn this_host_has_something() {
        let host = HostSize::of_this_host();
        assert!((1..1 << 20).contains(&host.cpus) && host.memory_bytes > 1 << 20, "{host:?}");
    }
}
