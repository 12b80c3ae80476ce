//! Requests from clients, from the bytes on the wire to what is carried out.
#![no_main]

use jobworker::job::{JobId, JobRequest};
use jobworker::service::{Caps, request};
use jobworker_proto::v1;
use libfuzzer_sys::fuzz_target;
use prost::Message;

const CAPS: Caps = Caps { args: 64, args_bytes: 1024 };

fuzz_target!(|bytes: &[u8]| {
    if let Ok(v1::StartRequest { id, spec }) = v1::StartRequest::decode(bytes) {
        match request::id(&id) {
            Ok(id) => assert_eq!(id.to_string().parse::<JobId>().unwrap(), id),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        match request::job(spec.unwrap_or_default(), CAPS) {
            Ok(job) => check(&job),
            Err(error) => assert!(error.field.starts_with("spec.") && !error.problem.is_empty(), "{error}"),
        }
    }
    if let Ok(stop) = v1::StopRequest::decode(bytes)
        && let Ok(signal) = request::signal("signal", &stop.signal)
    {
        assert_eq!(request::signal("signal", signal.as_str()), Ok(signal));
    }
    if let Ok(stream) = v1::StreamRequest::decode(bytes) {
        let _ = (request::only(stream.only), request::beginning(stream.from));
    }
});

fn check(job: &JobRequest) {
    assert!(!job.command.as_bytes().is_empty());
    assert!(job.workdir.as_bytes().starts_with(b"/"));
    assert!(job.args.len() <= CAPS.args && job.env.len() <= CAPS.args);
    let has_bad_key = job.env.iter().any(|(key, _)| key.is_empty() || key.contains(['=', '\0']));
    assert!(!has_bad_key, "{:?}", job.env);
    // It goes to the spawner so, and is what a repeated Start is compared with.
    assert_eq!(jobworker_fuzz::json::<JobRequest>(&serde_json::to_vec(job).unwrap()).as_ref(), Some(job));
}
