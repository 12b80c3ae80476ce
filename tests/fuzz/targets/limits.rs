//! The texts of limits, as the command line, the API and `spec.json` have them, and that of the role's OID.
#![no_main]

use std::num::NonZeroU64;

use jobworker_certs::RoleOid;
use jobworker_fuzz::text;
use jobworker_limits::{CpuLimit, CpuWeight, IoLimit, IoRates, Limits, MemorySize, PidsLimit, SwapLimit};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    if let Some(limit) = text::<CpuLimit>(input) {
        // The kernel takes no quota below 1 ms.
        assert!(limit.quota_usec() >= 1000 && limit.period_usec() == 100_000);
    }
    if let Some(weight) = text::<CpuWeight>(input) {
        assert!((1..=10_000).contains(&weight.get()));
    }
    // From LONG_MAX rounded down to pages on, the kernel takes a limit for none.
    let least_without = i64::MAX as u64 / MemorySize::page_bytes() * MemorySize::page_bytes();
    if let Some(size) = text::<MemorySize>(input) {
        assert!((MemorySize::page_bytes()..least_without).contains(&size.bytes()));
    }
    if let Some(swap) = text::<SwapLimit>(input) {
        let bytes = swap.bytes();
        assert!(bytes == 0 || (MemorySize::page_bytes()..least_without).contains(&bytes));
    }
    if let Some(pids) = text::<PidsLimit>(input) {
        assert!((1..4_194_304).contains(&pids.get()));
    }
    text::<IoRates>(input);
    if let Some(limit) = text::<IoLimit>(input) {
        let rates = limit.rates();
        let all = [rates.rbps(), rates.wbps(), rates.riops(), rates.wiops()];
        assert!(all.iter().any(Option::is_some) && !all.contains(&NonZeroU64::new(u64::MAX)));
        let target = limit.target().map(|target| target.as_os_str().as_encoded_bytes());
        assert!(target.is_none_or(|target| !target.contains(&0)));
    }
    text::<RoleOid>(input);
    jobworker_fuzz::json::<Limits>(input.as_bytes());
});
