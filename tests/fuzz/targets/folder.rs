//! `spec.json` and `state.json`: what is read must be the same when it is written and read again.
#![no_main]

use jobworker::job::{JobId, Spec, State};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(spec) = jobworker_fuzz::json::<Spec>(bytes) {
        // The folder and the group are called so, and are found by it.
        assert_eq!(spec.id.to_string().parse::<JobId>().expect("an id is an id everywhere"), spec.id);
    }
    jobworker_fuzz::json::<State>(bytes);
});
