//! Very many ended jobs, without running them: a real one's folder, again and again, each time under an id of its own.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::Context;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use uuid::Uuid;

/// Copies an ended job's folder so many times, beside it. Each copy was asked for a microsecond after the one before.
///
/// # Errors
/// When the model is none, or the disk says no.
pub fn copies(model: &Path, count: usize) -> anyhow::Result<()> {
    let text = fs::read(model.join("spec.json")).context("read the model's spec.json")?;
    let mut spec: Value = serde_json::from_slice(&text)?;
    let created = spec["created_unix_usec"].as_u64().context("the model has a time")?;
    let files: Vec<_> = fs::read_dir(model)?.collect::<Result<_, _>>()?;
    for number in 0..count {
        let id = Uuid::new_v4().to_string();
        let folder = model.with_file_name(&id);
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        spec["id"] = id.into();
        spec["created_unix_usec"] = (created + number as u64).into();
        for file in &files {
            let copy = folder.join(file.file_name());
            match file.file_name().to_str() {
                Some("spec.json") => fs::write(&copy, serde_json::to_vec(&spec)?)?,
                _ if file.file_type()?.is_fifo() => mkfifo(&copy, Mode::S_IRUSR | Mode::S_IWUSR)?,
                _ => drop(fs::copy(file.path(), &copy)?),
            }
        }
    }
    Ok(())
}
