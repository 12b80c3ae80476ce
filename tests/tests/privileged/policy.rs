//! Policies that need controllers and other OS users: `ceilings`, whose envelope is in force, and `os-user`.

use std::sync::Arc;

use jobworker_tests::api::{Cause, JobSpec, Limits, StatusRequest, StopRequest};
use jobworker_tests::client::{everything, limited, output, run, shell, spec, start};
use jobworker_tests::pki::{role_extension, role_value};
use jobworker_tests::policy::{PolicyFile, Subject, TruthTable, shipped};
use jobworker_tests::{Client, Pki};
use tonic::Code;

use crate::jobs::{assert_refused, finish, outcome};
use crate::setup::Setup;

async fn under(file: &PolicyFile, args: &[&str]) -> Setup {
    under_with_pki(file, &Arc::new(Pki::new()), args).await
}

/// It renews certificates, too.
async fn under_with_pki(file: &PolicyFile, pki: &Arc<Pki>, args: &[&str]) -> Setup {
    let files = [file.path(), pki.ca(), pki.dir().join("ca-key.pem")];
    let [policy, ca, key] = files.each_ref().map(|path| path.to_str().expect("a UTF-8 path"));
    let own = ["--policy", policy, "--renew-ca", ca, "--renew-key", key];
    Setup::with_pki(pki, &[&own[..], args].concat()).await
}

#[tokio::test]
async fn ceilings_users_start_under_an_envelope() {
    let file = PolicyFile::new(shipped::CEILINGS);
    let setup = under(&file, &[]).await;
    let worker = &setup.worker;
    let (alice, bob) = (worker.pki.identity("alice"), worker.pki.identity("bob"));
    let carol = worker.pki.client("carol", "user", &[]);
    let mut table = TruthTable::of(worker);
    table.row("user", &bob, "own", Subject::Of(&bob)).await;
    table.row("user", &bob, "foreign", Subject::Of(&carol)).await;
    table.row("user", &bob, "admin's", Subject::Of(&alice)).await;
    table.row("user", &bob, "none", Subject::Nothing).await;
    table.row("admin", &alice, "foreign", Subject::Of(&bob)).await;
    table.row("admin", &alice, "none", Subject::Nothing).await;
    table.expect(
        "client  job      start  list  status  stream  wait  signal  stop  remove  renew
         user    own      yes    yes   yes     yes     yes   yes     yes   yes     yes
         user    foreign  yes    yes   yes     no      yes   no      no    no      yes
         user    admin's  yes    yes   yes     no      yes   no      no    no      yes
         user    none     yes    yes   gone    gone    gone  gone    gone  gone    yes
         admin   foreign  yes    yes   yes     yes     yes   yes     yes   yes     yes
         admin   none     yes    yes   gone    gone    gone  gone    gone  gone    yes",
    );
}

#[tokio::test]
async fn the_envelope_is_in_force_whatever_is_asked_for() {
    let file = PolicyFile::new(&shipped::CEILINGS.replace("# io = [\"/:20M\", ", "io = ["));
    let setup = under(&file, &[]).await;
    let (mut bob, mut alice) = (setup.worker.user().await, setup.worker.admin().await);
    let job = start(&mut bob, spec(&["sleep", "300"])).await.expect("under the envelope");
    let limits = job.limits_in_force.expect("limits");
    assert_eq!(limits.memory_max_bytes, Some(128 << 20));
    assert_eq!((limits.swap_max_bytes, limits.pids_max), (Some(0), Some(64)));
    assert_eq!((limits.cpu_quota_usec, limits.cpu_weight), (Some(50_000), Some(100)));
    let io = &limits.io[0];
    assert_eq!((io.device_name.as_str(), io.rbps, io.wbps), ("/dev/vdb", Some(50_000_000), Some(10_000_000)));
    let asked = job.spec.expect("a spec");
    assert_eq!(
        (asked.timeout_msec, asked.limits.expect("limits").memory.as_str()),
        (Some(600_000), "128MiB")
    );

    let lower =
        Limits { memory: "64MiB".to_owned(), io: vec!["/data:wbps=1M".to_owned()], ..Limits::default() };
    let job = start(&mut bob, limited(spec(&["sleep", "300"]), lower)).await.expect("below it");
    let limits = job.limits_in_force.expect("limits");
    let io = &limits.io[0];
    assert_eq!(
        (limits.memory_max_bytes, io.rbps, io.wbps),
        (Some(64 << 20), Some(50_000_000), Some(1_000_000))
    );

    // Neither a higher rate, nor another name of the same disk.
    let io =
        |limit: &str| limited(spec(&["true"]), Limits { io: vec![limit.to_owned()], ..Limits::default() });
    let refused = start(&mut bob, io("/data:11M")).await;
    assert_refused(
        refused,
        Code::PermissionDenied,
        "DENIED",
        &["spec.limits.io", "wbps=11000000", "wbps=10000000"],
    );
    start(&mut bob, io("/dev/vdb:1G")).await.expect_err("two limits for one disk");
    let full = start(&mut alice, spec(&["true"])).await.expect("an admin has no envelope");
    assert_eq!(full.limits_in_force.expect("limits").memory_max_bytes, None);
}

#[tokio::test]
async fn who_asks_for_no_memory_limit_runs_into_the_one_that_was_set() {
    let file = PolicyFile::new(shipped::CEILINGS);
    let setup = under(&file, &[]).await;
    let actor = jobworker_tests::binaries::binary("actor");
    let hog = spec(&[actor.to_str().expect("UTF-8"), "hog", "512"]);
    let job = run(&mut setup.worker.user().await, hog).await.expect("it runs");
    assert_eq!(outcome(&job).cause(), Cause::OutOfMemory, "{job:#?}");
    assert!(outcome(&job).own_memory_limit, "{job:#?}");
}

#[tokio::test]
async fn os_user_jobs_run_as_the_user_in_the_certificate() {
    let pki = Arc::new(Pki::new());
    // In the VM, alice and bob are OS users as well.
    let (alice, bob) = (pki.identity("alice"), pki.identity("bob"));
    let (kept_out, unknown) = (pki.client("nobody", "user", &[]), pki.client("no-such-user", "user", &[]));
    let file = PolicyFile::new(shipped::OS_USER);
    let setup = under_with_pki(&file, &pki, &["--allow-user", "alice,bob"]).await;
    let worker = &setup.worker;
    let carol = pki.odd_client("carol", |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "bob");
        params.custom_extensions.push(role_extension(&role_value("user")));
    });
    for (client, name) in [(&alice, "alice"), (&bob, "bob"), (&carol, "bob")] {
        let (job, seen) = finish(&mut worker.client(client).await, shell("id -un")).await;
        assert_eq!((seen.trim_end(), job.user.as_str()), (name, name));
    }
    let mut table = TruthTable::of(worker);
    table.row("bob", &bob, "own", Subject::Of(&bob)).await;
    table.row("bob", &bob, "namesake's", Subject::Of(&carol)).await;
    table.row("bob", &bob, "foreign", Subject::Of(&alice)).await;
    table.row("bob", &bob, "none", Subject::Nothing).await;
    table.row("admin", &alice, "own", Subject::Of(&alice)).await;
    table.row("admin", &alice, "foreign", Subject::Of(&bob)).await;
    // An OS user that the spawner does not allow.
    table.row("nobody", &kept_out, "foreign", Subject::Of(&alice)).await;
    table.expect(
        "client  job         start  list    status  stream  wait  signal  stop  remove  renew
         bob     own         yes    yes     yes     yes     yes   yes     yes   yes     yes
         bob     namesake's  yes    yes     yes     yes     yes   yes     yes   yes     yes
         bob     foreign     yes    hidden  no      no      no    no      no    no      yes
         bob     none        yes    yes     gone    gone    gone  gone    gone  gone    yes
         admin   own         yes    yes     yes     yes     yes   yes     yes   yes     yes
         admin   foreign     yes    yes     yes     no      yes   yes     yes   yes     yes
         nobody  foreign     no     hidden  no      no      no    no      no    no      yes",
    );
    let refused = start(&mut setup.worker.client(&unknown).await, spec(&["true"])).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", &["spec.user", "\"no-such-user\""]);
}

async fn start_as(client: &mut Client, user: &str) -> Result<jobworker_tests::api::Job, tonic::Status> {
    start(client, JobSpec { user: user.to_owned(), ..spec(&["true"]) }).await
}

#[tokio::test]
async fn a_certificate_gives_nobody_another_user_and_never_root() {
    let pki = Arc::new(Pki::new());
    let file = PolicyFile::new(shipped::OS_USER);
    // The spawner would allow all of them.
    let allowed = ["--allow-user", "alice,bob,root"];
    let setup =
        Setup::with_pki(&pki, &[&["--policy", file.path().to_str().expect("UTF-8")][..], &allowed].concat())
            .await;
    let mut bob = setup.worker.user().await;
    let name = |odd: &'static str| {
        pki.odd_client(odd, |params| {
            params.custom_extensions.push(role_extension(&role_value("admin")));
        })
    };
    for user in ["root", "0", "alice", "1001", "1002"] {
        let words = ["spec.user", user, "\"bob\""];
        assert_refused(start_as(&mut bob, user).await, Code::PermissionDenied, "DENIED", &words);
    }
    for odd in ["root", "0", "1001"] {
        let mut client = setup.worker.client(&name(odd)).await;
        for asked in ["", "root", "alice"] {
            let refused = start_as(&mut client, asked).await;
            assert_refused(refused, Code::PermissionDenied, "DENIED", &["spec.user"]);
        }
    }
    let job = start_as(&mut bob, "bob").await.expect("his own");
    let mine = output(&mut bob, everything(&job.id)).await.expect("his own");
    assert!(mine.end.is_some_and(|job| job.user == "bob"));
    let mut alice = setup.worker.admin().await;
    alice.status(StatusRequest { job: job.id.clone() }).await.expect("an admin may look");
    alice.stop(StopRequest { job: job.id.clone(), ..StopRequest::default() }).await.expect("and stop");
    let refused = output(&mut alice, everything(&job.id)).await.expect_err("and not read");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(setup.worker.audit().iter().any(|line| line["user"] == "bob" && line["decision"] == "allowed"));
}
