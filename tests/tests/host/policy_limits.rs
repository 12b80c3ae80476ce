//! Which limits the clients of a role may ask for, over real mutual TLS: `limits = "none"`, `"ceiling"` and `"any"`.

use std::fmt::Write;

use jobworker_tests::api::{Cause, JobSpec, Limits, StatusRequest};
use jobworker_tests::client::{limited, run, spec, start};
use jobworker_tests::policy::PolicyFile;
use jobworker_tests::wait::until_equal;
use jobworker_tests::{Client, Worker, census};
use tonic::Code;

use crate::policy::worker;
use crate::policy_start::under;
use crate::support::details;

type Edit = fn(&mut JobSpec);

/// What can be asked for, and a ceiling for it.
const ASKED: [(&str, Edit, &str); 9] = [
    ("spec.limits.cpu", |spec| limits(spec).cpu = "500m".to_owned(), "cpu = 1"),
    ("spec.limits.cpu_weight", |spec| limits(spec).cpu_weight = "5".to_owned(), "cpu_weight = 50"),
    ("spec.limits.memory", |spec| limits(spec).memory = "64MiB".to_owned(), "memory = \"1GiB\""),
    (
        "spec.limits.memory_high",
        |spec| limits(spec).memory_high = "64MiB".to_owned(),
        "memory_high = \"1GiB\"",
    ),
    ("spec.limits.swap", |spec| limits(spec).swap = "0".to_owned(), "swap = 0"),
    ("spec.limits.pids", |spec| limits(spec).pids = "50".to_owned(), "pids = 64"),
    ("spec.limits.io", |spec| limits(spec).io = vec!["/:1M".to_owned()], "io = [\"/:20M\"]"),
    ("spec.timeout_msec", |spec| spec.timeout_msec = Some(60_000), "timeout = \"1h\""),
    ("spec.output_limit", |spec| spec.output_limit = "1MiB".to_owned(), "output = \"2MiB\""),
];

fn limits(spec: &mut JobSpec) -> &mut Limits {
    spec.limits.get_or_insert_default()
}

/// `denied` by the line with `limits`, or `yes`: the policy is not against it, whatever the host's kernel can enforce.
async fn cell(client: &mut Client, field: &str, ask: Edit) -> &'static str {
    let mut spec = spec(&["true"]);
    ask(&mut spec);
    match start(client, spec).await {
        Ok(_) => "yes",
        Err(refused) if refused.code() != Code::PermissionDenied => "yes",
        Err(refused) => {
            assert_eq!(details(&refused), ("DENIED".to_owned(), vec![field.to_owned()]), "{refused}");
            assert!(refused.message().contains("may") && refused.message().contains("ask for"), "{refused}");
            "denied"
        }
    }
}

/// A row for each client: one letter for what each limit of [`ASKED`] comes to, `y` or `d`.
async fn table(worker: &Worker) -> String {
    let mut text = String::new();
    for (name, mut client) in [("admin", worker.admin().await), ("user", worker.user().await)] {
        let mut row = String::new();
        for (field, ask, _) in ASKED {
            row.push_str(&cell(&mut client, field, ask).await[..1]);
        }
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name} {row}");
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_ask_for_which_limit() {
    let all = ASKED.map(|(.., ceiling)| ceiling).join("\n");
    for (jobs, users) in [
        ("limits = \"none\"".to_owned(), "ddddddddd"),
        (format!("limits = \"none\"\n{}", ASKED[7].2), "ddddddddd"),
        ("limits = \"ceiling\"".to_owned(), "ddddddddd"),
        (format!("limits = \"ceiling\"\n{all}"), "yyyyyyyyy"),
        (format!("limits = \"ceiling\"\n{}\n{}", ASKED[0].2, ASKED[8].2), "ydddddddy"),
        ("limits = \"any\"".to_owned(), "yyyyyyyyy"),
        (format!("limits = \"any\"\n{}", ASKED[5].2), "yyyyyyyyy"),
        (String::new(), "yyyyyyyyy"),
    ] {
        let worker = worker(&under(&jobs));
        let expected = format!("admin yyyyyyyyy\nuser {users}\n");
        assert_eq!(table(&worker).await, expected, "left: as it is; under {jobs}");
        let denied =
            || worker.audit().into_iter().filter(|line| line["decision"] == "denied").collect::<Vec<_>>();
        let count = users.matches('d').count();
        until_equal("an audit line for each denial", &count, || denied().len());
        let names_its_line = |rule: &str| rule.contains("policy.toml:6: roles.user.jobs.limits = \"");
        assert!(
            denied().iter().all(|line| line["rule"].as_str().is_some_and(names_its_line)),
            "{:#?}",
            denied()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_ask_gets_the_defaults() {
    let file = under("limits = \"none\"\ntimeout = { max = \"1h\", default = \"200ms\" }\noutput = \"2MiB\"");
    let worker = worker(&file);
    let mut bob = worker.user().await;
    let job = run(&mut bob, spec(&["sleep", "300"])).await.expect("under the defaults");
    let asked = job.spec.expect("a spec");
    assert_eq!((asked.timeout_msec, job.output_limit_bytes), (Some(200), Some(2 << 20)));
    assert_eq!(job.outcome.expect("an outcome").cause(), Cause::TimedOut);
    let below = JobSpec { timeout_msec: Some(100), ..spec(&["true"]) };
    let refused = start(&mut bob, below).await.expect_err("not even less");
    let words = "spec.timeout_msec: this role may not ask for limits (role \"user\")";
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, words));
    assert_eq!(census::job_folders(&worker.jobs_dir()).len(), 1, "nothing of what was denied");
    bob.status(StatusRequest { job: job.id }).await.expect("his own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ceiling_still_holds_and_other_disks_have_none() {
    let file: PolicyFile = under("limits = \"ceiling\"\nmemory = \"64MiB\"\nio = [\"/data:20M\"]");
    let worker = worker(&file);
    let mut bob = worker.user().await;
    let ask = |limits: Limits| limited(spec(&["true"]), limits);
    for (limits, words) in [
        (Limits { memory: "65MiB".to_owned(), ..Limits::default() }, "above the ceiling of 64MiB"),
        (Limits { swap: "1MiB".to_owned(), ..Limits::default() }, "above the ceiling of 0"),
        (Limits { io: vec!["/data:21M".to_owned()], ..Limits::default() }, "spec.limits.io: /data:21MB"),
        (
            Limits { io: vec!["/data:1M".to_owned(), "/:1M".to_owned()], ..Limits::default() },
            "only where the policy has",
        ),
    ] {
        let refused = start(&mut bob, ask(limits)).await.expect_err(words);
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains(words), "{words}: {refused}");
    }
}
