use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::unistd::Pid as OsPid;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::job::fake::{self, FakeShim};
use crate::job::folder::{INDEX, LOCK, OUTPUT, SPEC, STATE};
use crate::job::spec::FORMAT_VERSION;
use crate::output::index::Kind;
use crate::shim::attributes::Attributes;
use crate::shim::record::{JobsDirWriter, Readers, UNBORN};
use crate::spawner::defaults::JobDefaults;
use crate::spawner::users::AllowedUsers;

/// A host without groups, in its boot "a", which is also that of the jobs of a [`FakeShim`].
fn a_host() -> (TempDir, Host) {
    let state_dir = tempfile::tempdir().unwrap();
    let host = Host {
        base: None,
        without_base: String::new(),
        jobs: JobsDirWriter::make(state_dir.path(), None).unwrap(),
        users: AllowedUsers::new(Some("root".to_owned()), Vec::new()).unwrap(),
        attributes: Attributes::new(&JobDefaults::default()).unwrap(),
        readers: Readers { group: None },
        worker: None,
        boot_id: "a".to_owned(),
    };
    (state_dir, host)
}

/// A running job that nobody is with.
fn left(host: &Host) -> (JobId, FakeShim) {
    let job = JobId::random();
    let mut shim = FakeShim::start(&host.jobs, &fake::spec(job, "alice"));
    shim.append(Kind::Stdout, 1, b"planted");
    (job, shim)
}

fn scan_all(host: &Host) {
    let found = scan(host);
    assert!(found.orphans.is_empty() && found.losses.is_empty(), "{:?}", found.losses);
}

fn names(host: &Host) -> BTreeSet<String> {
    let entries = fs::read_dir(host.jobs.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn aside(job: JobId, number: u32) -> String {
    format!(".unreadable.{job}.{number}")
}

fn lost(host: &Host, job: JobId) -> Option<String> {
    match host.jobs.folder(job).state().unwrap().unwrap().finished().map(|finished| finished.outcome.clone())
    {
        Some(Outcome::Lost { reason }) => Some(reason),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_job_without_its_shim_is_lost_and_an_ended_one_stays_as_it_is() {
    let (_state_dir, host) = a_host();
    let (job, _) = left(&host);
    let (ended, shim) = left(&host);
    shim.exit(3);
    let before = fs::read(shim.folder().file(STATE)).unwrap();
    scan_all(&host);
    assert!(
        lost(&host, job).unwrap().starts_with("its shim was gone when the spawner started; it had no group")
    );
    assert_eq!(fs::read(shim.folder().file(STATE)).unwrap(), before);
    assert_eq!(names(&host), BTreeSet::from([job.to_string(), ended.to_string()]));
}

#[test]
fn after_a_restart_of_the_host_that_is_the_reason_and_the_index_is_mended() {
    let (_state_dir, host) = a_host();
    let host = Host { boot_id: "b".to_owned(), ..host };
    let (job, shim) = left(&host);
    let index = fs::read(shim.folder().file(INDEX)).unwrap();
    fs::write(shim.folder().file(INDEX), [&index[..], &[0; 100]].concat()).unwrap();
    scan_all(&host);
    assert_eq!(lost(&host, job).unwrap(), "the host was restarted");
    assert_eq!(fs::read(shim.folder().file(INDEX)).unwrap(), index);
    assert_eq!(fs::read(shim.folder().file(OUTPUT)).unwrap(), b"planted");
}

#[test]
fn a_job_that_was_starting_is_removed_also_half_removed() {
    let (_state_dir, host) = a_host();
    for missing in [None, Some(SPEC)] {
        let folder = FakeShim::prepare(&host.jobs, &fake::spec(JobId::random(), "alice"));
        fs::write(folder.file("state.json.reserve.new"), [0; 16]).unwrap();
        fs::write(folder.file(OUTPUT), "").unwrap();
        if let Some(name) = missing {
            fs::remove_file(folder.file(name)).unwrap();
        }
    }
    scan_all(&host);
    assert_eq!(names(&host), BTreeSet::new());
}

#[test]
fn what_is_malformed_is_set_aside_whole_and_numbered() {
    let (_state_dir, host) = a_host();
    type Breakage = fn(&Folder);
    let table: [(&str, Breakage); 9] = [
        ("no JSON", |folder| fs::write(folder.file(STATE), "{\"version\": 1, ").unwrap()),
        ("an empty state", |folder| fs::write(folder.file(STATE), "").unwrap()),
        ("an empty spec", |folder| fs::write(folder.file(SPEC), "").unwrap()),
        ("no version", |folder| fs::write(folder.file(SPEC), "{}").unwrap()),
        ("zeros", |folder| fs::write(folder.file(STATE), [0; 4096]).unwrap()),
        ("another job's spec", |folder| {
            fs::write(folder.file(SPEC), serde_json::to_vec(&fake::spec(JobId::random(), "a")).unwrap())
                .unwrap();
        }),
        ("a spec of something else", |folder| fs::write(folder.file(SPEC), "{\"version\": 1}").unwrap()),
        ("no spec", |folder| fs::remove_file(folder.file(SPEC)).unwrap()),
        ("neither, but output", |folder| {
            fs::remove_file(folder.file(SPEC)).unwrap();
            fs::remove_file(folder.file(STATE)).unwrap();
        }),
    ];
    for (what, make) in table {
        let (job, shim) = left(&host);
        make(shim.folder());
        // A name that is taken already.
        fs::create_dir(host.jobs.path().join(aside(job, 1))).unwrap();
        scan_all(&host);
        let moved = host.jobs.path().join(aside(job, 2));
        assert_eq!(fs::read(moved.join(OUTPUT)).unwrap(), b"planted", "{what}");
        assert!(!shim.folder().path().exists(), "{what}");
    }
}

#[test]
fn what_is_newer_or_can_not_be_read_now_is_left_untouched() {
    let (_state_dir, host) = a_host();
    let newer = format!("{{\"version\": {}, \"phase\": 7}}", FORMAT_VERSION + 1);
    for (name, bytes) in
        [(STATE, Some(&newer)), (SPEC, Some(&newer)), (STATE, None), (SPEC, None), (LOCK, None)]
    {
        let (job, shim) = left(&host);
        let path = shim.folder().file(name);
        let _ = fs::remove_file(&path);
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            // EISDIR.
            None => fs::create_dir(&path).unwrap(),
        }
        scan_all(&host);
        assert!(names(&host).contains(&job.to_string()), "{name} {bytes:?}");
        assert!(path.is_dir() || fs::read(&path).unwrap() == newer.as_bytes());
        assert!(bytes.is_none() || !shim.folder().file(LOCK).exists(), "it was touched");
    }
    assert!(names(&host).iter().all(|name| !name.starts_with('.')));
}

#[test]
fn links_that_were_planted_in_a_folder_lead_nowhere() {
    let (state_dir, host) = a_host();
    let secret = state_dir.path().join("secret");
    fs::write(&secret, "root's own").unwrap();
    for name in [LOCK, "lock.new", "state.json.reserve.new", "state.json.new", INDEX, OUTPUT] {
        let (_, shim) = left(&host);
        let path = shim.folder().file(name);
        let _ = fs::remove_file(&path);
        symlink(&secret, &path).unwrap();
        scan_all(&host);
        assert_eq!(fs::read_to_string(&secret).unwrap(), "root's own", "{name}");
    }
}

#[test]
fn a_shim_is_known_by_its_lock_before_it_has_a_state() {
    let (_state_dir, host) = a_host();
    let job = JobId::random();
    let path = host.jobs.folder(job).path().to_owned();
    let mut writer = JobFolder::prepare(&host.jobs, host.readers).unwrap();
    writer.give_to(&fake::spec(job, "alice")).unwrap();
    let found = scan(&host);
    assert_eq!(found.orphans.iter().map(|orphan| orphan.job).collect::<Vec<_>>(), [job]);
    assert!(found.losses.is_empty() && path.exists());
    drop(writer);
    scan_all(&host);
    assert!(!path.exists(), "it was starting");
}

#[test]
fn a_shim_that_can_not_be_told_is_waited_for() {
    let (_state_dir, host) = a_host();
    let (job, shim) = left(&host);
    // Of an early build, and the state does not say either.
    let lock = fs::File::create_new(shim.folder().file(LOCK)).unwrap();
    lock.lock().unwrap();
    let found = scan(&host);
    assert!(found.orphans.is_empty(), "pid 5000001 is nobody's");
    let [loss] = found.losses.try_into().unwrap();
    thread::scope(|scope| {
        let recoverer = scope.spawn(|| recover(&host, loss));
        assert_eq!(lost(&host, job), None);
        drop(lock);
        recoverer.join().unwrap();
    });
    assert!(lost(&host, job).unwrap().contains("left by an earlier spawner"));
}

#[test]
fn a_loss_that_can_not_be_recorded_is_tried_again_until_it_can() {
    let (_state_dir, host) = a_host();
    let (job, shim) = left(&host);
    let in_the_way = shim.folder().file("state.json.new");
    fs::create_dir(&in_the_way).unwrap();
    let [loss] = scan(&host).losses.try_into().unwrap();
    assert_eq!(lost(&host, job), None);
    thread::scope(|scope| {
        let recoverer = scope.spawn(|| recover(&host, loss));
        // Each attempt writes its pid into the lock. The second says that the first has failed.
        for _ in 0..2 {
            fs::write(shim.folder().file(LOCK), "").unwrap();
            let deadline = Instant::now() + PATIENCE;
            while shim.folder().last_writer().is_none() {
                assert!(Instant::now() < deadline, "it is not tried again");
                thread::sleep(Duration::from_millis(1));
            }
        }
        fs::remove_dir(&in_the_way).unwrap();
        recoverer.join().unwrap();
    });
    assert!(lost(&host, job).is_some());
}

#[test]
fn an_unborn_folder_without_a_lock_is_its_living_shims() {
    let (_state_dir, host) = a_host();
    let make = |pid: i32, lock: bool| -> PathBuf {
        let path = host.jobs.path().join(format!("{UNBORN}{}.{pid}", JobId::random()));
        fs::create_dir(&path).unwrap();
        if lock {
            fs::write(path.join(LOCK), "").unwrap();
        }
        path
    };
    let own = OsPid::this().as_raw();
    let between_mkdir_and_lock = make(own, false);
    let gone = [make(own, true), make(5_000_000, false), make(5_000_001, true)];
    scan_all(&host);
    assert!(between_mkdir_and_lock.exists());
    for path in gone {
        assert!(!path.exists(), "{path:?}");
    }
}

/// JSON as a shim writes it, broken in one place; or anything.
fn file(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = good.len();
    let (cut, changed) = (good.clone(), good);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        (0..length).prop_map(move |end| cut[..end].to_vec()),
        (0..length, any::<u8>()).prop_map(move |(at, byte)| {
            let mut bytes = changed.clone();
            bytes[at] = byte;
            bytes
        }),
    ]
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = [SPEC, STATE, INDEX, OUTPUT].map(|name| folder.join(name)).into_iter().collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn written() -> [Vec<u8>; 4] {
    let (_state_dir, host) = a_host();
    let (_, shim) = left(&host);
    let lock = format!("{:>10}\n", 5_000_001).into_bytes();
    let [spec, state, index] = [SPEC, STATE, INDEX].map(|name| fs::read(shim.folder().file(name)).unwrap());
    [spec, state, index, lock]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_a_scan_fail_or_cost_another_job_or_any_output(
        (spec, state, index, lock) in { let [spec, state, index, lock] = written(); (file(spec), file(state), file(index), file(lock)) },
        which in 1u8..16,
    ) {
        let (_state_dir, host) = a_host();
        let host = Host { boot_id: "b".to_owned(), ..host };
        let (_, good) = left(&host);
        good.exit(0);
        let before = files(good.folder().path());
        let (job, broken) = left(&host);
        for (bit, (name, bytes)) in [(SPEC, spec), (STATE, state), (INDEX, index), (LOCK, lock)].iter().enumerate() {
            if which & (1 << bit) != 0 {
                fs::write(broken.folder().file(name), bytes).unwrap();
            }
        }
        scan_all(&host);
        prop_assert_eq!(files(good.folder().path()), before);
        let places = [broken.folder().path().to_owned(), host.jobs.path().join(aside(job, 1))];
        let outputs: Vec<_> = places.iter().filter_map(|folder| fs::read(folder.join(OUTPUT)).ok()).collect();
        prop_assert_eq!(outputs, vec![b"planted".to_vec()]);
    }
}
