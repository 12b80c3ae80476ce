//! Where the binaries under test are.

use std::path::PathBuf;

/// `jobworker`, `jobctl` or `actor`.
///
/// # Panics
/// When it has not been built: a test that ran something else would prove nothing.
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("JOBWORKER_BIN_DIR").map_or_else(build_folder, PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not there: run scripts/test, or cargo build --workspace first",
        path.display()
    );
    path
}

/// Test executables stand in `target/<profile>/deps`.
fn build_folder() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    own.ancestors().nth(2).expect("target/<profile>/deps/<test>").to_owned()
}
