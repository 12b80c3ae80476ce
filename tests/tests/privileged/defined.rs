//! What a job gets is defined, whatever its spawner was started with: priorities, limits, masks, keys.

use std::collections::BTreeMap;
use std::os::unix::fs::chown;
use std::sync::Arc;

use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, JobSpec};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{shell, spec};
use jobworker_tests::{Client, Worker};

use crate::jobs::{assert_ended, finish, start_until, stop};
use crate::setup::{Setup, Turn};
use crate::unprivileged::{ALICE, pki_of};

fn actor(args: &[&str], user: &str) -> JobSpec {
    let program = binary("actor");
    let args = [&[program.to_str().expect("UTF-8")], args].concat();
    JobSpec { user: user.to_owned(), ..spec(&args) }
}

/// What the job finds, by name.
async fn attributes(client: &mut Client, user: &str) -> BTreeMap<String, String> {
    let (job, seen) = finish(client, actor(&["attributes"], user)).await;
    assert_ended(&job, Cause::Exited, Ended::ExitCode(0));
    seen.lines()
        .map(|line| {
            line.split_once(' ').map(|(name, value)| (name.to_owned(), value.to_owned())).expect(line)
        })
        .collect()
}

/// What each job gets.
fn defined() -> BTreeMap<String, String> {
    let threads: u64 = std::fs::read_to_string("/proc/sys/kernel/threads-max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("a number");
    let half = format!("{0}:{0}", threads / 2);
    let open_files: u64 = std::fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("a number");
    let cpus = std::fs::read_to_string("/sys/devices/system/cpu/possible").expect("sysfs");
    let none = "0000000000000000";
    [
        ("policy", "0"),
        ("nice", "0"),
        ("priority", "0"),
        ("reset-on-fork", "0"),
        ("io-priority", "0"),
        ("timer-slack", "50000"),
        ("personality", "0"),
        ("securebits", "0"),
        ("no-huge-pages", "0"),
        ("machine-check", "2"),
        ("io-flusher", "0"),
        ("memory-merge", "0"),
        ("memory-policy", "0"),
        ("oom_score_adj", "0"),
        ("coredump_filter", "00000033"),
        ("Umask", "0022"),
        ("Cpus_allowed_list", cpus.trim()),
        ("SigBlk", none),
        // SIGPIPE, by the runtime of the program that looks.
        ("SigIgn", "0000000000001000"),
        ("CapInh", none),
        ("CapAmb", none),
        ("NoNewPrivs", "0"),
        ("odd-key", "none"),
        ("AS", "unlimited:unlimited"),
        ("CORE", "0:unlimited"),
        ("CPU", "unlimited:unlimited"),
        ("DATA", "unlimited:unlimited"),
        ("FSIZE", "unlimited:unlimited"),
        ("LOCKS", "unlimited:unlimited"),
        ("MEMLOCK", "8388608:8388608"),
        ("MSGQUEUE", "819200:819200"),
        ("NICE", "0:0"),
        ("NOFILE", &format!("1024:{}", open_files.min(524_288))),
        ("NPROC", &half),
        ("RSS", "unlimited:unlimited"),
        ("RTPRIO", "0:0"),
        ("RTTIME", "unlimited:unlimited"),
        ("SIGPENDING", &half),
        ("STACK", "8388608:unlimited"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// The names of what differs, with both values.
fn differences(
    expected: &BTreeMap<String, String>,
    found: &BTreeMap<String, String>,
) -> Vec<(String, String, String)> {
    let nothing = String::from("nothing");
    let names = expected.keys().chain(found.keys()).collect::<std::collections::BTreeSet<_>>();
    let values = names.into_iter().map(|name| {
        let [expected, found] = [expected, found].map(|map| map.get(name).unwrap_or(&nothing).clone());
        (name.clone(), expected, found)
    });
    values.filter(|(_, expected, found)| expected != found).collect()
}

async fn odd(args: &[&str]) -> Setup {
    Setup::behind(&["actor", "odd"], args).await
}

#[tokio::test]
async fn a_job_of_an_odd_spawner_has_the_defined_values() {
    let setup = odd(&["--allow-user", "alice"]).await;
    let mut client = setup.worker.admin().await;
    for user in ["root", "alice"] {
        let found = attributes(&mut client, user).await;
        assert_eq!(differences(&defined(), &found), [], "as {user}");
    }
}

#[tokio::test]
async fn a_job_of_an_ordinary_spawner_has_the_same() {
    let setup = Setup::new().await;
    let found = attributes(&mut setup.worker.admin().await, "").await;
    assert_eq!(differences(&defined(), &found), []);
}

#[tokio::test]
async fn a_key_in_ones_session_keyring_is_in_nobody_elses() {
    let setup = odd(&["--allow-user", "alice,bob"]).await;
    let mut client = setup.worker.admin().await;
    let holder = start_until(&mut client, actor(&["store-key", "mine"], "alice"), "stored").await;
    for user in ["bob", "alice"] {
        for key in ["mine", "odd"] {
            let (_, seen) = finish(&mut client, actor(&["find-key", key], user)).await;
            assert!(seen.starts_with("none in keyring;"), "{user} finds {key}: {seen}");
        }
    }
    stop(&mut client, &holder.id, Some(0)).await;
}

/// Says which of these values it may set its own badness to.
fn badness(values: &[i32]) -> JobSpec {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    let script = format!(
        "read -r now </proc/self/oom_score_adj; echo $now
        for to in {}; do (echo $to >/proc/$$/oom_score_adj) 2>/dev/null && echo to $to; done; :",
        values.join(" ")
    );
    JobSpec { user: "alice".to_owned(), ..shell(&script) }
}

#[tokio::test]
async fn a_jobs_user_can_not_make_the_kernel_spare_it() {
    let setup = odd(&["--allow-user", "alice"]).await;
    let (_, seen) = finish(&mut setup.worker.admin().await, badness(&[-900, -1, 0, 7, 0])).await;
    assert_eq!(seen, "0\nto 0\nto 7\nto 0\n");
    drop(setup);
    let setup = odd(&["--allow-user", "alice", "--default-oom-score-adj", "300"]).await;
    let (_, seen) = finish(&mut setup.worker.admin().await, badness(&[0, 299, 301])).await;
    assert_eq!(seen, "300\nto 301\n");
}

#[tokio::test]
async fn an_operator_says_what_jobs_begin_with() {
    let args = ["--default-rlimit", "NOFILE=2000:3000", "--default-rlimit", "CORE=unlimited"];
    let setup = odd(&[&args[..], &["--default-oom-score-adj", "-5"]].concat()).await;
    let found = attributes(&mut setup.worker.admin().await, "").await;
    let mut expected = defined();
    for (name, value) in [("NOFILE", "2000:3000"), ("CORE", "unlimited:unlimited"), ("oom_score_adj", "-5")] {
        expected.insert(name.to_owned(), value.to_owned());
    }
    assert_eq!(differences(&expected, &found), []);
}

/// What a spawner may not raise its jobs keep; everything else is as defined, and no start fails for it.
#[tokio::test]
async fn without_root_a_job_has_what_its_spawner_may_give() {
    let _turn = Turn::shared().await;
    let (pki, state) = (pki_of(ALICE), Arc::new(tempfile::tempdir().expect("a temporary folder")));
    chown(state.path(), Some(ALICE), Some(ALICE)).expect("root may");
    let worker =
        Worker::builder().uid(ALICE).pki(&pki).state(&state).behind(&["actor", "odd-unprivileged"]).start();
    let found = attributes(&mut worker.admin().await, "").await;
    let mut expected = defined();
    for (name, value) in [
        // It may go back to SCHED_OTHER, but not up from nice 7; its badness back to where it was raised from.
        ("nice", "7"),
        ("AS", "69793218560:69793218560"),
        ("CORE", "0:2"),
        ("CPU", "2000:2000"),
        ("DATA", "9663676416:9663676416"),
        ("FSIZE", "2147483648:2147483648"),
        ("LOCKS", "20:20"),
        ("MEMLOCK", "2097152:2097152"),
        ("MSGQUEUE", "2000:2000"),
        ("NOFILE", "1024:5000"),
        ("NPROC", "6000:6000"),
        ("RSS", "9663676416:9663676416"),
        ("RTTIME", "2000000000:2000000000"),
        ("SIGPENDING", "200:200"),
        ("STACK", "8388608:33554432"),
    ] {
        expected.insert(name.to_owned(), value.to_owned());
    }
    assert_eq!(differences(&expected, &found), []);
    let log = worker.log().join("\n");
    assert!(log.contains("nice 0") && log.contains("EPERM"), "the spawner says so: {log}");
}
