//! The moment in which a renewed pair takes the place of the one before: killed, or out of room, jobctl leaves a pair
//! that can be used.

use std::fs;
use std::process::{Command, Stdio};

use jobworker_tests::Worker;
use jobworker_tests::binaries::binary;
use jobworker_tests::pki::Identity;

use crate::support::{Answer, jobctl_as};

/// The calls that the switch consists of, and how many there are of each.
const CALLS: [(&str, usize); 4] = [("fchmod", 4), ("rename", 6), ("fsync", 10), ("unlink", 6)];

fn files(identity: &Identity) -> [Vec<u8>; 2] {
    [fs::read(&identity.cert), fs::read(&identity.key)].map(|file| file.expect("a file"))
}

/// `jobctl cert renew` under strace, which kills it (SIGKILL) as it enters such a call for the so-manieth time.
fn renew_killed_at(worker: &Worker, name: &str, call: &str, time: usize) -> Answer {
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-o", "/dev/null", &format!("--trace={call}")]);
    command.arg(format!("--inject={call}:signal=KILL:when={time}"));
    under(command, &worker.jobctl_as(name, &["cert", "renew"]))
}

/// Runs jobctl as the last arguments of another command.
fn under(mut outer: Command, jobctl: &Command) -> Answer {
    outer.arg(binary("jobctl")).args(jobctl.get_args()).stdin(Stdio::null());
    for (key, value) in jobctl.get_envs() {
        match value {
            Some(value) => outer.env(key, value),
            None => outer.env_remove(key),
        };
    }
    Answer::of(outer.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

#[test]
fn killed_at_any_call_of_the_switch_it_leaves_a_usable_pair() {
    let worker = Worker::builder().renewing().args(&["--renew-days", "90"]).start();
    let (mut kept, mut renewed, mut completed) = (0, 0, 0);
    for (call, times) in CALLS {
        for time in 1..=times + 1 {
            let (name, at) = (format!("{call}{time}"), format!("{call} {time}"));
            let identity = worker.pki.client(&name, "user", &[]);
            let before = files(&identity);
            let answer = renew_killed_at(&worker, &name, call, time);
            // One time more than there are: nothing is killed, so none of them was left out.
            assert_eq!(answer.code == Some(0), time > times, "{at}: {answer:#?}");
            let half = files(&identity);
            // Whatever is there is enough to go on with, at once.
            jobctl_as(&worker, &name, &["list"]).with_code(0);
            let after = files(&identity);
            assert_eq!(before[0] == after[0], before[1] == after[1], "one pair or the other, at {at}");
            match (after == before, half == after) {
                (true, _) => kept += 1,
                (false, true) => renewed += 1,
                (false, false) => completed += 1,
            }
        }
    }
    assert_eq!((kept, completed, renewed), (19, 4, 7));
}

#[test]
fn without_room_the_old_pair_stays() {
    let worker = Worker::builder().renewing().args(&["--renew-days", "90"]).start();
    let identity = worker.pki.identity("bob");
    let before = files(&identity);
    // 0 blocks: no file may grow (RLIMIT_FSIZE). The signal that comes with it is ignored, so that the error counts.
    for blocks in ["0", "1"] {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f $0; exec \"$@\"", blocks]);
        let jobctl = worker.jobctl_as("bob", &["cert", "renew", "--key-kind", "rsa4096"]);
        let answer = under(command, &jobctl).with_code(1);
        answer.saying(&["bob.pem is kept as it was", "cannot write", "File too large"]);
        assert_eq!(files(&identity), before);
        let left = fs::read_dir(worker.pki.dir()).expect("a folder").flatten();
        assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().contains(".pem.")).count(), 0);
    }
    jobctl_as(&worker, "bob", &["list"]).with_code(0);
}
