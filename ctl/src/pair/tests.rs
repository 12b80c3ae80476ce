//! Every instant at which a replacement may be cut off, one by one, with real files.

use std::fs::Permissions;
use std::mem;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::*;

struct Files {
    dir: TempDir,
    pair: Pair,
}

/// A certificate that lasts so many days, and its key, PEM.
fn issue(days: i64) -> [String; 2] {
    let mut params = CertificateParams::default();
    params.not_after = OffsetDateTime::now_utc() + Duration::days(days);
    let key = KeyPair::generate().expect("a key");
    [params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem()]
}

impl Files {
    fn new() -> (Self, [String; 2]) {
        let dir = tempfile::tempdir().expect("a folder");
        let pair = Pair { cert: dir.path().join("alice.pem"), key: dir.path().join("keys/alice-key.pem") };
        fs::create_dir(dir.path().join("keys")).expect("a folder");
        let old = issue(10);
        let files = Self { dir, pair };
        files.put(&old);
        (files, old)
    }

    fn put(&self, [cert, key]: &[String; 2]) {
        fs::write(&self.pair.cert, cert).expect("a writable folder");
        fs::write(&self.pair.key, key).expect("a writable folder");
        for path in [&self.pair.cert, &self.pair.key] {
            fs::set_permissions(path, Permissions::from_mode(0o600)).expect("our own file");
        }
    }

    fn holds(&self) -> [String; 2] {
        [&self.pair.cert, &self.pair.key].map(|path| fs::read_to_string(path).expect("a file"))
    }

    /// The names beside the two files.
    fn rest(&self) -> usize {
        let count = |dir: &Path| fs::read_dir(dir).expect("a folder").count();
        count(self.dir.path()) + count(&self.dir.path().join("keys")) - 3
    }

    /// The first steps, and then this process is gone.
    fn replace_until(&self, new: &[String; 2], steps: usize) {
        let staged = self.pair.stage(&new[0], &new[1]).expect("room");
        for step in &Step::ALL[..steps] {
            step.take(&self.pair).expect("a step");
        }
        // As a kill does: nothing is removed, but the lock is given up.
        let Staged { pair: _, _lock: lock } = &staged;
        lock.unlock().expect("a lock");
        mem::forget(staged);
    }
}

#[test]
fn cut_off_anywhere_one_of_the_two_pairs_is_there_after_the_next_start() {
    for steps in 0..=Step::ALL.len() {
        let (files, old) = Files::new();
        let new = issue(20);
        files.replace_until(&new, steps);
        files.pair.complete().expect("it can be completed");
        let published = Step::ALL.iter().position(|step| *step == Step::PublishKey).expect("a step");
        assert_eq!(files.holds(), if steps > published { new } else { old }, "after {steps} steps");
        assert!(fits(&files.pair.cert, &files.pair.key).expect("both can be read"), "after {steps} steps");
        // Once more finds nothing to do, and the next renewal is not kept from anything.
        files.pair.complete().expect("nothing to do");
        let next = issue(30);
        files.pair.stage(&next[0], &next[1]).expect("room").replace(Former::GiveUp).expect("replaced");
        assert_eq!((files.holds(), files.rest()), (next, 0), "after {steps} steps");
    }
}

#[test]
fn torn_writes_are_no_pair() {
    let (files, old) = Files::new();
    let new = issue(20);
    for (path, text) in [(&files.pair.cert, &new[0]), (&files.pair.key, &new[1])] {
        fs::write(beside(path, "part"), &text[..text.len() / 2]).expect("a writable folder");
        files.pair.complete().expect("nothing to do");
        assert_eq!(files.holds(), old);
    }
    files.pair.stage(&new[0], &new[1]).expect("room").replace(Former::GiveUp).expect("replaced");
    assert_eq!((files.holds(), files.rest()), (new, 0));
}

#[test]
fn what_was_put_there_by_hand_since_is_left_alone() {
    for steps in [2, 3] {
        let (files, _) = Files::new();
        files.replace_until(&issue(20), steps);
        let by_hand = issue(40);
        files.put(&by_hand);
        files.pair.complete().expect("nothing is to be completed");
        assert_eq!((files.holds(), files.rest()), (by_hand, 0), "after {steps} steps");
    }
}

#[test]
fn a_step_that_fails_gives_the_old_pair_back() {
    for blocked in ["alice.pem.renewed", "keys/alice-key.pem.renewed"] {
        let (files, old) = Files::new();
        let staged = files.pair.stage(&issue(20)[0], &issue(20)[1]).expect("room");
        // A folder, which no file is renamed to.
        fs::create_dir(files.dir.path().join(blocked)).expect("a writable folder");
        staged.replace(Former::GiveUp).expect_err("a step fails");
        assert_eq!(files.holds(), old, "{blocked}");
    }
    let (files, old) = Files::new();
    let new = issue(20);
    files.replace_until(&new, 3);
    take_back(&files.pair, old[0].as_bytes()).expect("the old certificate again");
    assert_eq!((files.holds(), files.rest()), (old, 0));
}

#[test]
fn modes_are_kept_links_followed_and_one_file_may_hold_both() {
    let (files, _) = Files::new();
    let link = files.dir.path().join("link.pem");
    std::os::unix::fs::symlink("alice.pem", &link).expect("a link");
    let credentials =
        Credentials { ca: "ca.pem".into(), cert: link.clone(), key: files.pair.key.clone(), crl: Vec::new() };
    fs::set_permissions(&files.pair.cert, Permissions::from_mode(0o644)).expect("our own file");
    fs::set_permissions(&files.pair.key, Permissions::from_mode(0o666)).expect("our own file");
    let new = issue(20);
    Pair::of(&credentials).stage(&new[0], &new[1]).expect("room").replace(Former::GiveUp).expect("replaced");
    assert_eq!(files.holds(), new);
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink(), "the link is left");
    let mode = |path: &Path| fs::metadata(path).expect("a file").mode() & 0o777;
    assert_eq!(
        (mode(&files.pair.cert), mode(&files.pair.key)),
        (0o644, 0o640),
        "a key is never for everybody"
    );

    let both = files.dir.path().join("both.pem");
    fs::write(&both, issue(5).concat()).expect("a writable folder");
    let credentials =
        Credentials { ca: "ca.pem".into(), cert: both.clone(), key: both.clone(), crl: Vec::new() };
    Pair::of(&credentials).stage(&new[0], &new[1]).expect("room").replace(Former::GiveUp).expect("replaced");
    assert!(fits(&both, &both).expect("both are in it"));
    assert!(fs::read_to_string(&both).expect("a file").contains(&new[0]));
}

#[test]
fn a_renewal_waits_for_another_one() {
    let (files, _) = Files::new();
    let new = issue(20);
    let staged = files.pair.stage(&new[0], &new[1]).expect("room");
    let lock = File::open(files.dir.path()).expect("the folder");
    assert!(lock.try_lock().is_err(), "held while it is staged");
    staged.replace(Former::GiveUp).expect("replaced");
    lock.try_lock().expect("given up");
}

#[test]
fn the_former_pair_is_kept_whole_and_its_key_to_its_owner() {
    let (files, old) = Files::new();
    fs::set_permissions(&files.pair.cert, Permissions::from_mode(0o644)).expect("our own file");
    fs::set_permissions(&files.pair.key, Permissions::from_mode(0o640)).expect("our own file");
    let former = files.pair.former();
    let held = || [former.cert(), former.key()].map(|path| fs::read_to_string(path).expect("a file"));
    let mode = |path: &Path| fs::metadata(path).expect("a file").mode() & 0o777;
    let mut before = old;
    for days in [20, 30] {
        let new = issue(days);
        files.pair.stage(&new[0], &new[1]).expect("room").replace(Former::Keep).expect("replaced");
        assert_eq!((files.holds(), held()), (new.clone(), before));
        assert_eq!((mode(former.cert()), mode(former.key())), (0o644, 0o600));
        assert_eq!(files.rest(), 2, "the two files of the former pair, and nothing else");
        before = new;
    }
}
