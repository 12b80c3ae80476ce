//! Reading the small files that a person names: configuration, certificates, keys.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than any of them has, so that a device or a log named by mistake does not fill the memory.
const MAX_BYTES: u64 = 1 << 20;

/// The whole file, up to 1 MiB.
///
/// # Errors
/// It can't be read, or is larger.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    let read = File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut data)?;
    if read as u64 > MAX_BYTES {
        return Err(io::Error::other("it holds more than 1 MiB"));
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_refused() {
        assert_eq!(read(Path::new("/dev/null")).expect("readable"), b"");
        let error = read(Path::new("/dev/zero")).expect_err("too large");
        assert_eq!(error.to_string(), "it holds more than 1 MiB");
    }
}
