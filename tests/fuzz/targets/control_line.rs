//! The FIFO in a job's folder: whatever is written to it, in whichever pieces.
#![no_main]

use std::fs::File;
use std::io::Write;

use jobworker::shim::control::{Control, Lines, MAX_LINE_BYTES};
use libfuzzer_sys::fuzz_target;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

fuzz_target!(|writes: Vec<&[u8]>| {
    let (reader, writer) = pipe2(OFlag::O_NONBLOCK).unwrap();
    let (mut fifo, mut writer) = (File::from(reader), File::from(writer));
    let mut lines = Lines::default();
    let (mut read, mut written) = (Vec::new(), Vec::new());
    for bytes in &writes {
        // A pipe holds 64 KiB.
        let bytes = &bytes[..bytes.len().min(60_000)];
        writer.write_all(bytes).unwrap();
        written.extend_from_slice(bytes);
        read.extend(lines.read(&mut fifo));
    }
    for line in &read {
        assert!(!line.is_empty() && !line.contains(&b'\n'));
        if let Ok(control) = Control::decode(line) {
            control.signal().expect("it was decoded");
            // What is as long as this was not written in one piece.
            if let Ok(encoded) = control.encode() {
                assert_eq!(Control::decode(&encoded[..encoded.len() - 1]).unwrap(), control);
            }
        }
    }
    // How it was cut makes no difference, as long as nobody writes lines that no request has.
    let mut whole: Vec<&[u8]> = written.split(|byte| *byte == b'\n').collect();
    if whole.iter().all(|line| line.len() < MAX_LINE_BYTES) {
        whole.pop();
        whole.retain(|line| !line.is_empty());
        assert_eq!(read, whole);
    }
});
