//! The limits that are tried, each small enough for any host and unlike what is in force without.

use jobworker_limits::{Limits, LimitsInForce};

/// A limit to try: the flag's text, how to ask for it, and what the kernel should say.
pub(super) struct Trial {
    pub(super) flag: &'static str,
    pub(super) ask: fn(&mut Limits),
    pub(super) in_force: fn(&LimitsInForce) -> Option<String>,
}

pub(super) const TRIALS: [Trial; 7] = [
    Trial {
        flag: "--cpu-limit 0.5",
        ask: |limits| limits.cpu = Some("0.5".parse().expect("a limit")),
        in_force: |found| Some(format!("cpu.max {} {}", found.cpu_quota_usec?, found.cpu_period_usec?)),
    },
    Trial {
        flag: "--cpu-weight 50",
        ask: |limits| limits.cpu_weight = Some("50".parse().expect("a weight")),
        in_force: |found| Some(format!("cpu.weight {}", found.cpu_weight?)),
    },
    Trial {
        flag: "--memory-limit 64MiB",
        ask: |limits| limits.memory = Some("64MiB".parse().expect("a size")),
        in_force: |found| Some(format!("memory.max {}", found.memory_max_bytes?)),
    },
    Trial {
        flag: "--memory-high 48MiB",
        ask: |limits| limits.memory_high = Some("48MiB".parse().expect("a size")),
        in_force: |found| Some(format!("memory.high {}", found.memory_high_bytes?)),
    },
    Trial {
        flag: "--swap-limit 16MiB",
        ask: |limits| limits.swap = Some("16MiB".parse().expect("a size")),
        in_force: |found| Some(format!("memory.swap.max {}", found.swap_max_bytes?)),
    },
    Trial {
        flag: "--pids-limit 64",
        ask: |limits| limits.pids = Some("64".parse().expect("a number")),
        in_force: |found| Some(format!("pids.max {}", found.pids_max?)),
    },
    Trial {
        flag: "--io-limit rbps=10MB,wbps=5MB,riops=1000,wiops=500",
        ask: |limits| limits.io = vec!["rbps=10MB,wbps=5MB,riops=1000,wiops=500".parse().expect("rates")],
        in_force: |found| {
            let [disk] = found.io.as_slice() else { return None };
            let (rbps, wbps, riops, wiops) = (disk.rbps?, disk.wbps?, disk.riops?, disk.wiops?);
            let device = format!("{} ({})", disk.device, disk.device_name);
            Some(format!("io.max {device} rbps={rbps} wbps={wbps} riops={riops} wiops={wiops}"))
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_tried_once() {
        let mut all = Limits::default();
        for trial in &TRIALS {
            let before = all.clone();
            (trial.ask)(&mut all);
            assert_ne!(before, all, "{}", trial.flag);
            assert_eq!((trial.in_force)(&LimitsInForce::default()), None, "{}", trial.flag);
        }
        let Limits { cpu, cpu_weight, memory, memory_high, swap, pids, io } = all;
        let given = [
            cpu.is_some(),
            cpu_weight.is_some(),
            memory.is_some(),
            memory_high.is_some(),
            swap.is_some(),
            pids.is_some(),
            !io.is_empty(),
        ];
        assert_eq!(given, [true; 7]);
    }
}
