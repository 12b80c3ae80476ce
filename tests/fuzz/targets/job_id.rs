//! What clients call a job by: an id, or the beginning of one.
#![no_main]

use std::sync::LazyLock;

use jobworker::job::JobId;
use jobworker::policy::Among;
use jobworker_fuzz::worker::Worker;
use libfuzzer_sys::fuzz_target;

/// Two that begin alike, and one that does not.
const JOBS: [&str; 3] = [
    "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f",
    "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e70",
    "a0000000-0000-4000-8000-000000000000",
];

static WORKER: LazyLock<Worker> = LazyLock::new(|| {
    let worker = Worker::new();
    JOBS.iter().for_each(|id| _ = worker.add(id.parse().unwrap(), true));
    worker
});

fuzz_target!(|input: &str| {
    if let Some(id) = jobworker_fuzz::text::<JobId>(input) {
        let text = id.to_string();
        assert!(text.len() == 36 && text == text.to_ascii_lowercase(), "{text}");
        // It names a folder and a group.
        assert_eq!(WORKER.jobs.folder(id).path().parent(), Some(WORKER.jobs.path()));
    }
    if let Some(id) = jobworker_fuzz::json::<JobId>(input.as_bytes()) {
        assert_eq!(id.to_string().parse::<JobId>().expect("an id is an id everywhere"), id);
    }
    let lower = input.to_ascii_lowercase();
    let fitting: Vec<&str> =
        JOBS.into_iter().filter(|id| !input.is_empty() && id.starts_with(&lower)).collect();
    match WORKER.runtime.block_on(WORKER.engine.resolve(input, Among::All)) {
        Ok(id) => assert_eq!(fitting, [id.to_string()]),
        Err(error) => assert!(fitting.len() != 1 && !error.to_string().is_empty(), "{error}"),
    }
});
