use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use tempfile::TempDir;

use super::*;

/// A trusted directory, and beside it a file that nothing in here may touch.
struct Place {
    folder: TempDir,
    dir: TrustedDir,
    secret: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (dir, made) = TrustedDir::make(&folder.path().join("dir"), 0o700, None).unwrap();
        assert_eq!(made, Made::Now);
        let secret = folder.path().join("secret");
        fs::write(&secret, "root's own").unwrap();
        Self { folder, dir, secret }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[track_caller]
    fn expect_untouched(&self) {
        assert_eq!(fs::read_to_string(&self.secret).unwrap(), "root's own");
    }
}

#[track_caller]
fn words<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => panic!("it was done"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn no_symbolic_link_is_followed_and_what_it_points_to_is_untouched() {
    let place = Place::new();
    let dir = &place.dir;
    symlink(&place.secret, place.path("lock")).unwrap();
    symlink(place.folder.path(), place.path("up")).unwrap();
    for refused in [words(dir.open("lock")), words(dir.open_writable("lock")), words(dir.subdir("up"))] {
        assert!(refused.contains("/dir/") && refused.contains("is a symbolic link"), "{refused}");
    }
    assert_eq!(dir.create("lock").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert!(dir.create_fifo("lock").is_err() && dir.create_dir("up", 0o700).is_err());
    assert!(words(dir.make_subdir("up", 0o700)).contains("is a symbolic link"));
    // The link itself is renamed and removed, not what it points to.
    dir.rename("lock", "state.json").unwrap();
    assert_eq!(FileType::from_raw_mode(dir.stat("state.json").unwrap().st_mode), FileType::Symlink);
    dir.create("new").unwrap();
    dir.rename("new", "state.json").unwrap();
    assert!(fs::symlink_metadata(place.path("state.json")).unwrap().is_file());
    dir.delete("up").unwrap();
    assert!(!dir.has("up").unwrap());
    place.expect_untouched();
}

#[test]
fn what_is_deleted_goes_whole_and_nothing_else_goes() {
    let place = Place::new();
    fs::create_dir_all(place.path("job/a/b")).unwrap();
    fs::write(place.path("job/a/b/file"), "x").unwrap();
    symlink(&place.secret, place.path("job/link")).unwrap();
    symlink(place.folder.path(), place.path("job/a/up")).unwrap();
    place.dir.delete("job").unwrap();
    place.dir.delete("job").expect("nothing is there, which is what was asked for");
    assert!(place.dir.names().unwrap().is_empty());
    place.expect_untouched();
    let deep: PathBuf = ["d"; MAX_DEPTH + 1].iter().collect();
    fs::create_dir_all(place.path("job").join(deep)).unwrap();
    assert!(words(place.dir.delete("job")).contains("nested deeper"));
}

#[test]
fn each_step_is_one_name() {
    let place = Place::new();
    for name in ["", ".", "..", "../secret", "/etc/passwd", "a/b"] {
        assert!(words(place.dir.open(name)).contains("no name of a file"), "{name:?}");
        assert!(place.dir.delete(name).is_err() && place.dir.rename(name, "x").is_err(), "{name:?}");
    }
    place.expect_untouched();
}

#[test]
fn a_directory_that_others_can_change_is_refused_with_what_to_do() {
    let place = Place::new();
    let reopened = || TrustedDir::make(place.dir.path(), 0o700, None);
    let set = |mode| fs::set_permissions(place.dir.path(), Permissions::from_mode(mode)).unwrap();
    for mode in [0o720, 0o702, 0o777, 0o1777] {
        set(mode);
        let refused = words(reopened());
        assert!(refused.contains(&format!("mode {mode:04o}")) && refused.contains("; as root: chmod go-w /"));
    }
    set(0o755);
    reopened().expect("others may look");
    fs::create_dir(place.path("job")).unwrap();
    fs::set_permissions(place.path("job"), Permissions::from_mode(0o775)).unwrap();
    assert!(words(place.dir.subdir("job")).contains("mode 0775"));
    // Who is not root can give nothing away.
    if geteuid().is_root() {
        fs::set_permissions(place.path("job"), Permissions::from_mode(0o700)).unwrap();
        for owned in [place.path("job"), place.dir.path().to_owned()] {
            chown(&owned, Some(65534), None).unwrap();
            let path = owned.display();
            let refused = words(if owned == place.dir.path() {
                reopened().map(|(dir, _)| dir)
            } else {
                place.dir.subdir("job")
            });
            let remedy = format!("as root: chown root {path} && chmod go-w {path}");
            assert!(refused.contains(" belongs to ") && refused.contains(&remedy), "{refused}");
        }
    }
}

#[test]
fn the_way_there_must_not_be_the_workers() {
    let place = Place::new();
    let worker = Some((Uid::from_raw(65534), Gid::from_raw(65534)));
    TrustedDir::make(place.dir.path(), 0o700, worker).expect("the way is root's or ours, /tmp sticky");
    let above = place.folder.path().join("above");
    fs::create_dir(&above).unwrap();
    let inner = above.join("a/b");
    TrustedDir::make(&inner, 0o700, worker).expect("made on the way");
    assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o7777, 0o700);
    fs::set_permissions(&above, Permissions::from_mode(0o777)).unwrap();
    assert!(words(TrustedDir::make(&inner, 0o700, worker)).contains("the worker's user"));
    TrustedDir::make(&inner, 0o700, None).expect("there is no other user");
    fs::set_permissions(&above, Permissions::from_mode(0o755)).unwrap();
    // A link that is ours is followed, and the way behind it is looked at as well.
    let link = place.folder.path().join("link");
    symlink("above/./a", &link).unwrap();
    let (dir, made) = TrustedDir::make(&link.join("../a/b"), 0o700, worker).unwrap();
    assert_eq!((made, dir.path()), (Made::Before, link.join("../a/b").as_path()));
    if geteuid().is_root() {
        chown(&above, Some(65534), None).unwrap();
        let refused = words(TrustedDir::make(&link.join("b"), 0o700, worker));
        assert!(refused.contains("above can be changed by") && refused.contains("chown root /"), "{refused}");
    }
    symlink(&link, place.folder.path().join("above/a/loop")).unwrap();
    symlink("round", place.folder.path().join("round")).unwrap();
    assert!(TrustedDir::make(&place.folder.path().join("round"), 0o700, None).is_err());
}

#[test]
fn files_are_read_and_written_by_name() {
    let place = Place::new();
    place.dir.create("state.json").unwrap();
    fs::write(place.path("state.json"), "{}").unwrap();
    let mut text = String::new();
    place.dir.open("state.json").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "{}");
    assert_eq!(fs::metadata(place.path("state.json")).unwrap().mode() & 0o7777, 0o600);
    place.dir.create_fifo("control").unwrap();
    place.dir.open("control").expect("nobody is waited for");
    assert_eq!(
        place.dir.rename_new("state.json", "control").unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    place.dir.remove_file("control").unwrap();
    assert_eq!(place.dir.names().unwrap(), ["state.json"]);
}
