//! What the documents show, proven: see [`jobworker_tests::documents`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jobworker_tests::binaries::binary;
use jobworker_tests::documents::{self, Block, File, Kind, Place, Reader};
use jobworker_tests::worker::clean;
use tempfile::TempDir;

use crate::support::Answer;

fn all_blocks() -> impl Iterator<Item = (&'static str, Block)> {
    documents::ALL.into_iter().flat_map(|(path, text)| {
        let blocks = documents::blocks(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        blocks.into_iter().map(move |block| (path, block))
    })
}

/// The checkout that this was built in.
fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the checkout")
}

#[test]
fn every_block_of_every_document_says_how_it_is_proven() {
    assert!(all_blocks().count() > 10, "the blocks are found");
    let known: Vec<_> = documents::ALL.iter().map(|(path, _)| checkout().join(path)).collect();
    let mut found = Vec::new();
    find_documents(checkout(), &mut found);
    assert!(known.iter().all(|path| found.contains(path)), "{known:?} are not all among {found:?}");
    for path in found.iter().filter(|path| !known.contains(path)) {
        let text = fs::read_to_string(path).expect("a document");
        assert!(!text.contains("```"), "{} has blocks, and documents::ALL does not name it", path.display());
    }
}

fn find_documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the checkout") {
        let entry = entry.expect("it can be read");
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            if name != "target" && name != "node_modules" && !name.to_string_lossy().starts_with('.') {
                find_documents(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn what_a_document_shows_for_any_host_works_there() {
    let mut reader = Reader::default();
    let script = reader.folder().join("certs/openssl.sh");
    fs::create_dir(script.parent().expect("below the folder")).expect("an empty folder");
    fs::copy(checkout().join("certs/openssl.sh"), script).expect("the checkout has it");
    let mut typed = 0;
    for (_, block) in all_blocks() {
        if matches!(block.kind, Kind::Shell { place: Place::Host, .. }) {
            reader.types(&block);
            typed += 1;
        }
    }
    assert!(typed > 0, "no document has such a block: this test has nothing to prove");
}

#[test]
fn what_a_document_shows_as_a_file_is_read_by_its_program() {
    let mut read = Vec::new();
    for (path, block) in all_blocks() {
        if let Kind::Toml(file) = block.kind {
            expect_read(&format!("{path}, line {}", block.line), file, &block.text);
            read.push(file);
        }
    }
    for file in [File::Worker, File::Policy, File::Jobctl] {
        assert!(read.contains(&file), "no document shows {file:?}");
    }
}

fn expect_read(place: &str, file: File, text: &str) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("shown.toml");
    fs::write(&path, text).expect("a writable folder");
    match file {
        File::Worker => {
            let mut doctor = Command::new(binary("jobworker"));
            clean(&mut doctor);
            doctor.arg("doctor").arg("--config").arg(&path).env("JOBWORKER_STATE_DIR", folder.path());
            let seen = String::from_utf8_lossy(&doctor.output().expect("it runs").stdout).into_owned();
            assert!(seen.contains("server-key.pem"), "{place}: doctor has read it: {seen}");
            assert!(!seen.contains("FAIL  configuration"), "{place}: {seen}");
        }
        File::Policy => {
            let mut check = Command::new(binary("jobworker"));
            Answer::of(check.args(["policy", "check"]).arg(&path)).with_code(0);
        }
        File::Jobctl => {
            let mut status = Command::new(binary("jobctl"));
            clean(&mut status);
            // The file is read and its paths are taken relative to it; there is no certificate, though.
            status.args(["cert", "status"]).env("JOBCTL_CONFIG", &path);
            let certificate = folder.path().join("alice.pem").display().to_string();
            Answer::of(&mut status).with_code(1).saying(&[&certificate]);
        }
    }
}
