//! The worker's private key in a file that others can get at: the log says so, at the start and at a reload.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use jobworker_tests::wait::until;
use jobworker_tests::{Pki, Worker};
use nix::sys::signal::Signal;

#[test]
fn a_key_that_others_can_get_at_is_warned_of_at_the_start_and_at_a_reload() {
    let pki = Arc::new(Pki::new());
    let set =
        |mode| fs::set_permissions(pki.server().key, Permissions::from_mode(mode)).expect("our own file");
    set(0o644);
    let worker = Worker::builder().pki(&pki).start();
    let told = |mode: &str| {
        let words = ["WARN", "server-key.pem", mode, "chmod 600", "certs server --force"];
        worker.log().iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    assert_eq!(told("has mode 0644"), 1, "{:#?}", worker.log());
    set(0o660);
    worker.signal(Signal::SIGHUP);
    until("it is told at a reload, too", || (told("has mode 0660") == 1).then_some(()));
    // As the package has it: the worker's group may read it.
    set(0o640);
    worker.signal(Signal::SIGHUP);
    let is_read_again = |line: &&String| line.contains("read again; they are in force now");
    until("it is read again", || (worker.log().iter().filter(is_read_again).count() == 2).then_some(()));
    assert_eq!((told("has mode 0640"), told("has mode 0660")), (0, 1));
}
