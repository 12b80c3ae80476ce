//! After a crash of the host an index may end in zeros or in garbage, or tell of bytes that `output` never got. What
//! is valid of it is kept, and the rest cut off, so that readers get all that is there.
//!
//! Only for an index that nobody writes any more. What a killed shim had set aside behind its end is given back, too.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Whence, lseek};

use super::index::{KEPT_AT, Kept, Kind, RECORD_BYTES, Record, Version};
use crate::job::folder::{Folder, INDEX, OUTPUT};

/// Records per look.
const BATCH_RECORDS: usize = 4096;

/// What was cut off, and what is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// From the end of the index, in bytes.
    pub index_bytes: u64,
    /// From the last record that was kept, in bytes of output that it told of and that are not there.
    pub output_bytes: u64,
    /// What the records that were kept tell of as not stored, in bytes: not cut off, but lost all the same.
    pub gap_bytes: u64,
}

/// Cuts a job's index back to its valid records: each begins where the one before ended, is of a known kind, and tells
/// of bytes that are in `output`, or of a gap. A file that has not even the header of an index stays as it is, for the
/// readers to complain about.
///
/// # Errors
/// When a file can't be read, or the index can't be written.
pub fn salvage(folder: &Folder) -> io::Result<Cut> {
    let index = match folder.open_writable(INDEX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Cut::default()),
        other => other?,
    };
    let output = match folder.open(OUTPUT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Cut::default()),
        other => other?,
    };
    let Some((version, kept)) = front(&index)? else { return Ok(Cut::default()) };
    let kept = behind_hole(&index, &output, version, kept)?;
    let mut valid =
        Valid { end: kept.offset, output_bytes: output.metadata()?.len(), gap_bytes: 0, short: None };
    let mut at = version.record_at(kept.record);
    let mut batch = vec![0; BATCH_RECORDS * RECORD_BYTES];
    loop {
        let whole = read_whole(&index, &mut batch, at)?;
        let kept = whole.iter().take_while(|bytes| valid.admits(bytes)).count();
        at += (kept * RECORD_BYTES) as u64;
        if kept < whole.len() || whole.is_empty() {
            break;
        }
    }
    let mut cut = Cut { gap_bytes: valid.gap_bytes, ..Cut::default() };
    if let Some((short, missing)) = valid.short {
        index.write_all_at(&short.encode(), at)?;
        at += RECORD_BYTES as u64;
        cut.output_bytes = missing;
    }
    cut.index_bytes = index.metadata()?.len().saturating_sub(at);
    index.set_len(at)?;
    if cut.index_bytes > 0 || cut.output_bytes > 0 {
        index.sync_all()?;
    }
    Ok(cut)
}

/// How the index is laid out, and from where on output was kept when that was last on the disk.
fn front(index: &File) -> io::Result<Option<(Version, Kept)>> {
    let Some(version) = read_slot(index, 0)?.as_ref().and_then(Version::of) else { return Ok(None) };
    let kept = match version {
        Version::V1 => Some(Kept::default()),
        Version::V2 => read_slot(index, KEPT_AT)?.as_ref().and_then(Kept::decode),
    };
    Ok(kept.map(|kept| (version, kept)))
}

/// What was given back may be gone from the disk, though the index on it does not say so yet: then output begins with
/// a hole, which must not be taken for what the job wrote. The index is put right.
fn behind_hole(index: &File, output: &File, version: Version, before: Kept) -> io::Result<Kept> {
    let length = output.metadata()?.len();
    let data = match lseek(output, off_t(before.offset)?, Whence::SeekData) {
        Ok(offset) => u64::try_from(offset).unwrap_or(0),
        // No data any more.
        Err(Errno::ENXIO) => length,
        Err(errno) => return Err(errno.into()),
    };
    if version == Version::V1 || data <= before.offset {
        return Ok(before);
    }
    let mut kept = before;
    for record in before.record.. {
        let Some(slot) = read_slot(index, version.record_at(record))? else { break };
        match Record::decode(&slot) {
            Ok(found) if found.offset >= data || found.kind == Kind::Gap && found.end() >= data => {
                kept = Kept { record, offset: found.offset };
                break;
            }
            Ok(found) => kept = Kept { record: record + 1, offset: found.end() },
            // Here the index has its hole, too.
            Err(_) => kept.record = record + 1,
        }
    }
    if kept != before {
        index.write_all_at(&kept.encode(), KEPT_AT)?;
        index.sync_data()?;
    }
    Ok(kept)
}

/// What stands at one place in the index; `None` behind its end.
fn read_slot(index: &File, at: u64) -> io::Result<Option<[u8; RECORD_BYTES]>> {
    let mut bytes = [0; RECORD_BYTES];
    match index.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn off_t(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(io::Error::other)
}

/// As many whole records as there are, and fit.
fn read_whole<'a>(index: &File, batch: &'a mut [u8], at: u64) -> io::Result<&'a [[u8; RECORD_BYTES]]> {
    let mut filled = 0;
    while filled < batch.len() {
        match index.read_at(&mut batch[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(batch[..filled].as_chunks::<RECORD_BYTES>().0)
}

/// How far the records are good.
struct Valid {
    /// The end of the last good one, as an offset in the output.
    end: u64,
    output_bytes: u64,
    gap_bytes: u64,
    /// The record after it as far as its bytes are there, and how many of them are not.
    short: Option<(Record, u64)>,
}

impl Valid {
    /// Whether the next record is good as it stands.
    fn admits(&mut self, bytes: &[u8; RECORD_BYTES]) -> bool {
        let Ok(record) = Record::decode(bytes) else { return false };
        if record.offset != self.end || record.length == 0 {
            return false;
        }
        let there = self.output_bytes.saturating_sub(record.offset).min(u64::from(record.length));
        let missing = u64::from(record.length) - there;
        // Bytes that were not stored need not be there.
        if missing == 0 || record.kind == Kind::Gap {
            self.end = record.end();
            self.gap_bytes += if record.kind == Kind::Gap { u64::from(record.length) } else { 0 };
            return true;
        }
        if let Ok(length @ 1..) = u32::try_from(there) {
            self.short = Some((Record { length, ..record }, missing));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::path::Path;

    use nix::fcntl::{FallocateFlags, fallocate};
    use proptest::prelude::*;

    use super::*;
    use crate::job::JobId;
    use crate::job::fake::{self, FakeShim};
    use crate::job::folder::{JobsDir, OUTPUT};
    use crate::output::Extent;
    use crate::output::index::HEADER;

    /// Output of 15 bytes in three records, with a gap at the end.
    fn job(state_dir: &Path) -> Folder {
        let mut shim = FakeShim::start(&JobsDir::new(state_dir), &fake::spec(JobId::random(), "alice"));
        shim.append(Kind::Stdout, 1, b"first");
        shim.append(Kind::Stderr, 2, b"second");
        shim.append(Kind::Stdout, 3, b"last");
        shim.record(Kind::Gap, 4, 7);
        shim.folder().clone()
    }

    /// What is cut off of such a job: nothing but its gap is lost.
    const NOTHING: Cut = Cut { index_bytes: 0, output_bytes: 0, gap_bytes: 7 };

    fn index(folder: &Folder) -> Vec<u8> {
        fs::read(folder.file(INDEX)).unwrap()
    }

    fn records(folder: &Folder) -> Vec<(u64, u32, Kind)> {
        let index = index(folder);
        let (records, rest) = index[2 * RECORD_BYTES..].as_chunks();
        assert!(rest.is_empty(), "a record that is not whole");
        let decoded = records.iter().map(|bytes| Record::decode(bytes).unwrap());
        decoded.map(|record| (record.offset, record.length, record.kind)).collect()
    }

    const ALL: [(u64, u32, Kind); 4] =
        [(0, 5, Kind::Stdout), (5, 6, Kind::Stderr), (11, 4, Kind::Stdout), (15, 7, Kind::Gap)];

    fn append(folder: &Folder, bytes: &[u8]) {
        let before = index(folder);
        fs::write(folder.file(INDEX), [&before, bytes].concat()).unwrap();
    }

    fn record(offset: u64, length: u32, kind: Kind) -> [u8; RECORD_BYTES] {
        Record { offset, time_unix_usec: 5, length, kind }.encode()
    }

    #[test]
    fn what_is_valid_stays_as_it_is() {
        let state_dir = tempfile::tempdir().unwrap();
        let folder = job(state_dir.path());
        let before = index(&folder);
        assert_eq!(salvage(&folder).unwrap(), NOTHING);
        assert_eq!(index(&folder), before);
        assert_eq!(records(&folder), ALL);
    }

    #[test]
    fn zeros_garbage_and_what_does_not_adjoin_are_cut_off() {
        let hole = record(23, 4, Kind::Gap);
        let overlap = record(3, 4, Kind::Stdout);
        let beyond = record(22, 4, Kind::Stdout);
        let empty = record(22, 0, Kind::Gap);
        let endless = record(u64::MAX, 9, Kind::Gap);
        let tails: [&[u8]; 9] = [
            &[0; 4096],
            &[0xff; 24],
            &[7; 11],
            &hole,
            &overlap,
            &beyond,
            &empty,
            &endless,
            &[&[0; 24][..], &hole].concat(),
        ];
        for tail in tails {
            let state_dir = tempfile::tempdir().unwrap();
            let folder = job(state_dir.path());
            append(&folder, tail);
            assert_eq!(salvage(&folder).unwrap(), Cut { index_bytes: tail.len() as u64, ..NOTHING });
            assert_eq!(records(&folder), ALL, "{tail:x?}");
        }
    }

    #[test]
    fn a_record_keeps_what_is_there_of_its_bytes() {
        for (length, kept, cut) in [
            (15, &ALL[..], NOTHING),
            (
                14,
                &[ALL[0], ALL[1], (11, 3, Kind::Stdout)],
                Cut { index_bytes: 24, output_bytes: 1, gap_bytes: 0 },
            ),
            (11, &ALL[..2], Cut { index_bytes: 48, output_bytes: 0, gap_bytes: 0 }),
            (3, &[(0, 3, Kind::Stdout)], Cut { index_bytes: 72, output_bytes: 2, gap_bytes: 0 }),
            (0, &[], Cut { index_bytes: 96, output_bytes: 0, gap_bytes: 0 }),
        ] {
            let state_dir = tempfile::tempdir().unwrap();
            let folder = job(state_dir.path());
            OpenOptions::new().write(true).open(folder.file(OUTPUT)).unwrap().set_len(length).unwrap();
            assert_eq!(salvage(&folder).unwrap(), cut, "{length}");
            assert_eq!(records(&folder), kept, "{length}");
            let again = salvage(&folder).unwrap();
            assert_eq!((again.index_bytes, again.output_bytes), (0, 0), "once is enough");
        }
    }

    #[test]
    fn more_than_a_batch_is_looked_through() {
        let state_dir = tempfile::tempdir().unwrap();
        let mut shim =
            FakeShim::start(&JobsDir::new(state_dir.path()), &fake::spec(JobId::random(), "alice"));
        let count = BATCH_RECORDS * 2 + 1;
        (0..count).for_each(|_| shim.append(Kind::Stdout, 1, b"x"));
        append(shim.folder(), &[0; 48]);
        assert_eq!(salvage(shim.folder()).unwrap(), Cut { index_bytes: 48, output_bytes: 0, gap_bytes: 0 });
        assert_eq!(records(shim.folder()).len(), count);
    }

    #[test]
    fn what_is_no_index_is_left_alone() {
        for bytes in
            [&b""[..], &HEADER[..23], &[0; 96], b"an essay about something else, of 24 bytes or more"]
        {
            let state_dir = tempfile::tempdir().unwrap();
            let folder = job(state_dir.path());
            fs::write(folder.file(INDEX), bytes).unwrap();
            assert_eq!(salvage(&folder).unwrap(), Cut::default());
            assert_eq!(index(&folder), bytes);
        }
        let state_dir = tempfile::tempdir().unwrap();
        let folder = job(state_dir.path());
        fs::remove_file(folder.file(INDEX)).unwrap();
        assert_eq!(salvage(&folder).unwrap(), Cut::default());
    }

    /// The disk got the holes, and not the word of them.
    #[test]
    fn a_hole_in_front_is_not_taken_for_output() {
        for index_too in [false, true] {
            let state_dir = tempfile::tempdir().unwrap();
            let mut shim =
                FakeShim::start(&JobsDir::new(state_dir.path()), &fake::spec(JobId::random(), "alice"));
            (0..1000).for_each(|_| shim.append(Kind::Stdout, 1, &[b'x'; 100]));
            let folder = shim.folder();
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let punch = |name, from, length| {
                let file = OpenOptions::new().write(true).open(folder.file(name)).unwrap();
                fallocate(file, hole, from, length).unwrap();
            };
            punch(OUTPUT, 0, 40_960);
            if index_too {
                punch(INDEX, 4096, 4096);
            }
            assert_eq!(salvage(folder).unwrap(), Cut::default());
            // The first record that begins behind the hole.
            assert_eq!(Extent::read(folder).unwrap(), Extent { bytes: 100_000, kept_from: 41_000 });
            assert_eq!(salvage(folder).unwrap(), Cut::default());
        }
    }

    proptest! {
        /// Whatever the crash put behind good records, they stay, and what is left is valid.
        #[test]
        fn any_tail_leaves_a_valid_index(tail in prop::collection::vec(any::<u8>(), 0..200), output in 0u64..20) {
            let state_dir = tempfile::tempdir().unwrap();
            let folder = job(state_dir.path());
            append(&folder, &tail);
            OpenOptions::new().write(true).open(folder.file(OUTPUT)).unwrap().set_len(output).unwrap();
            salvage(&folder).unwrap();
            let kept = records(&folder);
            let mut end = 0;
            for (offset, length, kind) in &kept {
                prop_assert_eq!(*offset, end);
                end += u64::from(*length);
                prop_assert!(*kind == Kind::Gap || end <= output);
            }
            let whole = ALL.iter().take_while(|(offset, length, kind)| *kind == Kind::Gap || offset + u64::from(*length) <= output).count();
            prop_assert_eq!(&kept[..whole], &ALL[..whole]);
        }
    }
}
