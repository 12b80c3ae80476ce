//! What a policy lets jobs be: ceilings, how many run at a time, which commands.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jobworker_tests::api::{
    EnvVar, Job, JobSpec, Limits, ListRequest, RemoveRequest, StartRequest, StatusRequest, StopRequest,
};
use jobworker_tests::client::{everything, limited, output, run, spec, start, wait};
use jobworker_tests::pki::{role_extension, role_value};
use jobworker_tests::policy::{PolicyFile, shipped};
use jobworker_tests::wait::{PATIENCE, until_equal};
use jobworker_tests::{Client, Worker};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::policy::worker;
use crate::support::{Belongings, details};

fn sleeping() -> JobSpec {
    spec(&["sleep", "300"])
}

/// A policy under which users start jobs, and these may be so.
fn under(jobs: &str) -> PolicyFile {
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

fn is_one_too_many(refused: &Status) -> bool {
    let cap = refused.get_details_error_info().and_then(|info| info.metadata.get("cap").cloned());
    assert_eq!((refused.code(), cap.as_deref()), (Code::ResourceExhausted, Some("running")), "{refused}");
    assert!(refused.message().contains("bob has 2 jobs that have not ended"), "{refused}");
    true
}

async fn expect_full(client: &mut Client) {
    assert!(is_one_too_many(&start(client, sleeping()).await.expect_err("one too many")));
}

async fn stop(client: &mut Client, job: &str) {
    let stop = StopRequest { job: job.to_owned(), grace_msec: Some(0), ..StopRequest::default() };
    client.stop(stop).await.expect("one's own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_jobs_at_a_time_are_never_three() {
    let file = under("running = 2");
    let first = worker(&file);
    let bob = first.user().await;
    let starts = (0..24).map(|_| {
        let mut bob = bob.clone();
        async move { start(&mut bob, sleeping()).await }
    });
    let (started, refused): (Vec<_>, Vec<_>) = join_all(starts).await.into_iter().partition(Result::is_ok);
    let started: Vec<_> = started.into_iter().map(|job| job.expect("started").id).collect();
    assert_eq!(started.len(), 2);
    assert!(refused.into_iter().all(|refused| is_one_too_many(&refused.expect_err("refused"))));
    let denied = || first.audit().iter().filter(|line| line["decision"] == "denied").count();
    until_equal("an audit line for each", &22, denied);
    let rule =
        first.audit().into_iter().find(|line| line["decision"] == "denied").expect("a line")["rule"].clone();
    assert!(rule.as_str().is_some_and(|rule| rule.ends_with("roles.user.jobs.running = 2")), "{rule}");

    let carol = first.pki.client("carol", "user", &[]);
    start(&mut first.client(&carol).await, sleeping()).await.expect("another's jobs do not count");
    // Another worker counts what it finds.
    let worker = Worker::builder().pki(&first.pki).state(first.state());
    let worker = worker.args(&["--policy", file.path().to_str().expect("UTF-8")]);
    let worker = match first.cgroup() {
        Some(cgroup) => worker.cgroup(cgroup),
        None => worker,
    };
    let worker = worker.start();
    let mut bob = worker.user().await;
    expect_full(&mut bob).await;
    stop(&mut bob, &started[0]).await;
    let third = start(&mut bob, sleeping()).await.expect("a place is free").id;
    expect_full(&mut bob).await;
    let again = StartRequest { id: third, spec: Some(sleeping()) };
    bob.start(again).await.expect("the same job again is not one more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_used_again_counts_again() {
    let file = under("running = 2\n[roles.free]\nall = \"own\"");
    let worker = worker(&file);
    let free = worker.pki.odd_client("free", |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "bob");
        params.custom_extensions.push(role_extension(&role_value("free")));
    });
    let (mut bob, mut free) = (worker.user().await, worker.client(&free).await);
    let id = "3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f".to_owned();
    let with_id = |spec| StartRequest { id: id.clone(), spec: Some(spec) };
    bob.start(with_id(spec(&["true"]))).await.expect("a job");
    wait(&mut bob, &id).await.expect("it ends");
    // Counted once as one that has ended.
    start(&mut bob, sleeping()).await.expect("the first");
    bob.remove(RemoveRequest { job: id.clone() }).await.expect("it has ended");
    free.start(with_id(sleeping())).await.expect("the second, of the same owner in a role that counts none");
    expect_full(&mut bob).await;
}

/// Stops all jobs of a client, once there are so many.
async fn stop_all(client: &mut Client, count: usize) {
    let began = Instant::now();
    let jobs = loop {
        let list = client.list(ListRequest::default()).await.expect("a list").into_inner();
        if list.jobs.len() == count {
            break list.jobs;
        }
        assert!(began.elapsed() < PATIENCE, "still {} jobs", list.jobs.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    for job in jobs {
        stop(client, &job.id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_gives_up_a_start_neither_frees_its_place_nor_loses_it() {
    const PLACES: usize = 10;
    let file = under(&format!("running = {PLACES}"));
    let worker = worker(&file);
    for round in 0..40 {
        // Of its own connection: who gives up too many calls of one is disconnected.
        let mut bob = worker.user().await;
        let call = tokio::spawn(async move { start(&mut bob, sleeping()).await });
        // How far it has got by now is left to chance.
        tokio::time::sleep(Duration::from_micros(250 * (round % 16))).await;
        call.abort();
    }
    let fill = async |bob: &mut Client| {
        let starts = (0..2 * PLACES).map(|_| {
            let mut bob = bob.clone();
            async move {
                let started = start(&mut bob, sleeping()).await.map_err(|refused| refused.code());
                assert!(matches!(started, Ok(_) | Err(Code::ResourceExhausted)), "{started:?}");
                started.is_ok()
            }
        });
        join_all(starts).await.into_iter().filter(|started| *started).count()
    };
    let mut bob = worker.user().await;
    fill(&mut bob).await;
    // Those that were given up may still be on their way.
    assert_eq!(fill(&mut bob).await, 0, "all places are taken");
    stop_all(&mut bob, PLACES).await;
    assert_eq!(fill(&mut bob).await, PLACES, "and all are free again");
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
