//! What certs/README.md shows, typed by a reader who is root on a machine of their own.

use std::fs;
use std::io::Write;
use std::path::Path;

use jobworker_tests::documents::{self, Kind, Place, Reader};

use crate::setup::Turn;

#[tokio::test]
async fn the_commands_about_certificates_work_as_they_stand() {
    let _turn = Turn::shared().await;
    add("/etc/hosts", "127.0.0.1 build1.example.org\n");
    add("/etc/passwd", "jobs:x:995:995::/nonexistent:/bin/false\n");
    add("/etc/group", "jobs:x:995:\n");
    let mut reader = Reader::default();
    let mut typed = 0;
    for block in documents::blocks(documents::CERTS).expect("every block is classified") {
        if matches!(block.kind, Kind::Shell { place: Place::Vm, .. }) {
            hand_over(reader.folder());
            reader.types(&block);
            typed += 1;
        }
    }
    assert!(typed >= 10, "only {typed} blocks were found");
    let audit_log = fs::read_to_string(reader.folder().join("audit.log")).expect("the worker wrote it");
    assert!(audit_log.contains("certificate_issued"), "{audit_log}");
}

fn add(file: &str, line: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(file).expect("a file of this machine's");
    file.write_all(line.as_bytes()).expect("a writable root");
}

/// What issuer and client send each other goes on its way; here they share a folder.
fn hand_over(folder: &Path) {
    for file in ["carol.pem", "ca.pem"] {
        let (from, to) = (folder.join("certs").join(file), folder.join(file));
        if from.exists() && !to.exists() {
            fs::copy(from, to).expect("a writable folder");
        }
    }
}
