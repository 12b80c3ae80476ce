//! The worker's configuration file, by the way that the worker reads it.
#![no_main]

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::sync::{LazyLock, Mutex};

use jobworker::config::{Config, Options, Spawner};
use libfuzzer_sys::fuzz_target;
use nix::sys::memfd::{MFdFlags, memfd_create};

static FILE: LazyLock<Mutex<File>> =
    LazyLock::new(|| Mutex::new(memfd_create("worker.toml", MFdFlags::empty()).unwrap().into()));

fuzz_target!(|toml: &[u8]| {
    let mut file = FILE.lock().unwrap();
    file.set_len(0).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(toml).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match Config::load(Options { config: Some(path.into()), ..Options::default() }) {
        Ok(config) => {
            // A cap of 0 would let nobody in, and no time would be enough.
            assert!(config.max_calls_per_connection > 0 && config.max_request_bytes > 0);
            assert!(config.door.max_connections > 0 && config.door.max_handshakes > 0);
            assert!(config.service.max_followers > 0 && config.service.caps.args > 0);
            if let Spawner::Own(settings) = config.spawner {
                assert!(settings.socket.starts_with(&config.state_dir));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
