//! What needs the kernel of what clients ask for: limits that are in force and were hardly meant, and places that are
//! counted whichever OS user a job runs as.

use jobworker_tests::api::JobSpec;
use jobworker_tests::client::{spec, start};
use jobworker_tests::policy::PolicyFile;
use tonic::Code;

use crate::jobs::{assert_refused, stop};
use crate::setup::Setup;

#[tokio::test]
async fn limits_that_were_hardly_meant_are_in_force_and_warned_of() {
    let setup = Setup::new().await;
    let worker = &setup.worker;
    let told = |args: &[&str]| {
        let output = worker.jobctl(&[&["start"], args, &["--", "true"]].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{stderr}");
        assert!(uuid::Uuid::try_parse(stdout.trim_end()).is_ok(), "the id and nothing else: {stdout}");
        stderr
    };
    let cpus = std::thread::available_parallelism().expect("CPUs");
    let cpu = told(&["--cpu-limit", "512"]);
    let expected = format!("jobctl: warning: spec.limits.cpu: 512 CPUs are more than the {cpus} of the host");
    assert!(cpu.starts_with(&expected) && cpu.lines().count() == 1, "{cpu}");
    let disk = told(&["--disk-limit", "/data:500"]);
    assert!(
        disk.starts_with("jobctl: warning: spec.limits.io: /data:500B allows only 500 bytes read"),
        "{disk}"
    );
    let operations = told(&["--io-limit", "/data:wiops=9"]);
    assert!(operations.contains("only 9 write operations per second"), "{operations}");
    for fine in
        [&["--cpu-limit", "1"][..], &["--io-limit", "/data:64KiB"], &["--io-limit", "/data:riops=10"], &[]]
    {
        assert_eq!(told(fine), "", "{fine:?}");
    }
    let output = worker.jobctl(&["start", "--output", "json", "--cpu-limit", "512", "--", "true"]);
    let job: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(job["warnings"][0].as_str().is_some_and(|warning| warning.contains("512 CPUs")), "{job:#}");
}

/// What `running` says holds for a person, whose jobs run as the OS user of the certificate, or one named by `--user`.
#[tokio::test]
async fn places_are_counted_whichever_os_user_a_job_runs_as() {
    let file = PolicyFile::new(
        "ownership = \"os_user\"\n[roles.admin]\nall = \"any\"\n[roles.user]\nall = \"own\"\n\
         [roles.user.jobs]\nrunning = 2\nrun_as = \"common_name\"\nusers = \"any\"",
    );
    let policy = file.path();
    let args = ["--policy", policy.to_str().expect("UTF-8"), "--allow-user", "alice", "--allow-user", "bob"];
    let setup = Setup::with(&args).await;
    let worker = &setup.worker;
    let mut bob = worker.user().await;
    let as_user = |user: &str| JobSpec { user: user.to_owned(), ..spec(&["sleep", "300"]) };
    let first = start(&mut bob, as_user("alice")).await.expect("the first");
    assert_eq!(first.user, "alice");
    let second = start(&mut bob, as_user("")).await.expect("the second");
    assert_eq!(second.user, "bob");
    for user in ["", "alice", "bob"] {
        let refused = start(&mut bob, as_user(user)).await;
        assert_refused(
            refused,
            Code::ResourceExhausted,
            "CAP_REACHED",
            &["bob has 2 jobs that have not ended"],
        );
    }
    // Another person, whose jobs may run as the same OS user.
    let carol = worker.pki.client("carol", "user", &[]);
    start(&mut worker.client(&carol).await, as_user("bob")).await.expect("carol has places of her own");
    stop(&mut bob, &second.id, Some(0)).await;
    start(&mut bob, as_user("bob")).await.expect("a place is free");
}
