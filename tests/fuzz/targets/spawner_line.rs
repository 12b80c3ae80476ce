//! What comes over the spawner's socket, either way. The spawner may be root, and the worker may be taken over.
#![no_main]

use std::path::PathBuf;

use jobworker::shim::environment::image;
use jobworker::spawner::protocol::{Attached, Request, StartReply};
use jobworker::spawner::users::OsUser;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn comes_back<T: DeserializeOwned + Serialize>(line: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(line).ok()?;
    let written = serde_json::to_vec(&value).unwrap();
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
    Some(value)
}

fuzz_target!(|line: &[u8]| {
    comes_back::<StartReply>(line);
    comes_back::<Attached>(line);
    if let Some(Request::Start(spec)) = comes_back::<Request>(line) {
        let user = OsUser { name: "nobody".to_owned(), home: PathBuf::from("/"), credentials: None };
        let image = image(&spec.request, &user, true);
        assert_eq!(image.argv.len(), 1 + spec.request.args.len());
        assert!(!image.programs.is_empty());
    }
});
