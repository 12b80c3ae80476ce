//! What a policy lets jobs be: ceilings, how many run at a time, which commands.

use jobworker_tests::api::{EnvVar, Job, JobSpec, Limits, StartRequest, StatusRequest};
use jobworker_tests::client::{everything, limited, output, run, spec, start};
use jobworker_tests::policy::{PolicyFile, shipped};
use jobworker_tests::wait::until_equal;
use tonic::Code;

use crate::policy::worker;
use crate::support::{Belongings, details};

pub(crate) fn sleeping() -> JobSpec {
    spec(&["sleep", "300"])
}

/// A policy under which users start jobs, and these may be so.
pub(crate) fn under(jobs: &str) -> PolicyFile {
    PolicyFile::new(&format!(
        "[roles.admin]\nall = \"any\"\n[roles.user]\nall = \"own\"\n[roles.user.jobs]\n{jobs}"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_a_ceiling_is_denied_by_name_value_and_ceiling() {
    let file = PolicyFile::new(shipped::CEILINGS);
    let worker = worker(&file);
    let mut bob = worker.user().await;
    let some = |edit: fn(&mut Limits)| {
        let mut limits = Limits::default();
        edit(&mut limits);
        limited(spec(&["true"]), limits)
    };
    let plain = || spec(&["true"]);
    let cases = [
        (
            some(|limits| limits.memory = "513MiB".to_owned()),
            "spec.limits.memory",
            "513MiB",
            "512MiB",
            "memory",
        ),
        (some(|limits| limits.swap = "1MiB".to_owned()), "spec.limits.swap", "1MiB", "0", "memory"),
        (some(|limits| limits.cpu = "2001m".to_owned()), "spec.limits.cpu", "2.001", "2", "cpu"),
        (
            some(|limits| limits.cpu_weight = "101".to_owned()),
            "spec.limits.cpu_weight",
            "101",
            "100",
            "cpu_weight",
        ),
        (some(|limits| limits.pids = "257".to_owned()), "spec.limits.pids", "257", "256", "pids"),
        (
            JobSpec { timeout_msec: Some(3_600_001), ..plain() },
            "spec.timeout_msec",
            "1h 1ms",
            "1h",
            "timeout",
        ),
        (
            JobSpec { output_limit: "257MiB".to_owned(), ..plain() },
            "spec.output_limit",
            "257MiB",
            "256MiB",
            "output",
        ),
    ];
    for (number, (spec, field, asked, ceiling, key)) in cases.into_iter().enumerate() {
        let refused = start(&mut bob, spec).await.expect_err(field);
        assert_eq!(
            (refused.code(), details(&refused)),
            (Code::PermissionDenied, ("DENIED".to_owned(), vec![field.to_owned()]))
        );
        let words = format!("{field}: {asked} is above the ceiling of {ceiling}");
        assert!(refused.message().starts_with(&words), "{refused}");
        until_equal("one audit line each", &(number + 1), || worker.audit().len());
        let line = worker.audit().remove(number);
        let rule = line["rule"].as_str().expect("a rule");
        assert!(
            rule.contains("policy.toml:") && rule.contains(&format!("roles.user.jobs.{key} = ")),
            "{line}"
        );
        assert_eq!((&line["decision"], &line["client"]), (&"denied".into(), &"bob".into()), "{line}");
    }
    let refused = start(&mut bob, JobSpec { user: "root".to_owned(), ..plain() }).await.expect_err("a user");
    assert_eq!((refused.code(), details(&refused).1), (Code::PermissionDenied, vec!["spec.user".to_owned()]));
    assert_eq!(Belongings::of(&worker), Belongings::none());
    run(&mut worker.admin().await, JobSpec { timeout_msec: Some(7_200_000), ..plain() })
        .await
        .expect("an admin may");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_asked_for_is_set_and_shown() {
    let file = under("timeout = { max = \"1h\", default = \"10m\" }\noutput = \"2MiB\"");
    let worker = worker(&file);
    let mut bob = worker.user().await;
    let shown = |job: Job| (job.spec.expect("a spec").timeout_msec, job.output_limit_bytes);
    let set = run(&mut bob, spec(&["true"])).await.expect("under the envelope");
    assert_eq!(shown(set), (Some(600_000), Some(2 << 20)));
    let asked = JobSpec { timeout_msec: Some(1000), output_limit: "1MiB".to_owned(), ..spec(&["true"]) };
    assert_eq!(shown(run(&mut bob, asked).await.expect("below it")), (Some(1000), Some(1 << 20)));
    let admins = run(&mut worker.admin().await, spec(&["true"])).await.expect("an admin may");
    assert_eq!(shown(admins), (None, Some(1 << 30)), "another role's envelope is not theirs");
    // The same start again is the same job, though neither says what the policy does.
    let again =
        || StartRequest { id: "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f".to_owned(), spec: Some(sleeping()) };
    let first = bob.start(again()).await.expect("a job").into_inner().job.expect("a job");
    let second = bob.start(again()).await.expect("the same").into_inner().job.expect("a job");
    assert_eq!(first.pid, second.pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_commands_has_no_way_around() {
    let evil = tempfile::tempdir().expect("a temporary folder");
    let path = evil.path().join("echo");
    std::fs::write(&path, "#!/bin/sh\necho evil\n").expect("a writable folder");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("our own file");
    let file = under("commands = [\"/bin/echo\", \"/usr/bin/\"]\nenv = [\"CI\"]");
    let worker = worker(&file);
    let mut bob = worker.user().await;
    let set = |key: &str, value: &str| EnvVar { key: key.to_owned(), value: value.as_bytes().to_vec() };
    let with_ci = JobSpec { env: vec![set("CI", "1")], ..spec(&["echo", "good"]) };
    let job = run(&mut bob, with_ci).await.expect("a name in the list");
    assert_eq!(output(&mut bob, everything(&job.id)).await.expect("its output").stdout, b"good\n");
    assert_eq!(job.spec.expect("a spec").command, b"/bin/echo");
    run(&mut bob, spec(&["/usr/bin/env", "true"])).await.expect("below a folder in the list");
    let folder = evil.path().to_str().expect("UTF-8");
    for (spec, field) in [
        (JobSpec { env: vec![set("PATH", folder)], ..spec(&["echo"]) }, "spec.env[0].key"),
        (JobSpec { env: vec![set("CI", "1"), set("LD_PRELOAD", "x")], ..spec(&["echo"]) }, "spec.env[1].key"),
        (spec(&["/bin/sh", "-c", "true"]), "spec.command"),
        (spec(&["sh", "-c", "true"]), "spec.command"),
        (spec(&["/usr/bin/../../bin/sh"]), "spec.command"),
        (JobSpec { workdir: b"/usr/bin".to_vec(), ..spec(&["./env"]) }, "spec.command"),
    ] {
        let refused = start(&mut bob, spec).await.expect_err(field);
        assert_eq!(
            (refused.code(), details(&refused).1),
            (Code::PermissionDenied, vec![field.to_owned()]),
            "{refused}"
        );
    }
    run(&mut worker.admin().await, spec(&["/bin/sh", "-c", "true"])).await.expect("another role's list");
    bob.status(StatusRequest { job: job.id }).await.expect("his own");
}
