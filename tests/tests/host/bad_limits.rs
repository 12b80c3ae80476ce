//! Bad limits: refused before anything runs, with the field, the value and what would be right; and so is a limit that
//! this host can't enforce.

use jobworker_tests::Worker;
use jobworker_tests::api::Limits;
use jobworker_tests::client::{limited, run, spec};
use tonic::Code;

use crate::bad_input::{expect_invalid_spec, expect_untouched};
use crate::support::{details, jobctl};

/// Limits with one of them set.
fn limit(field: &str, value: &str) -> Limits {
    let mut limits = Limits::default();
    let text = value.to_owned();
    match field {
        "cpu" => limits.cpu = text,
        "cpu_weight" => limits.cpu_weight = text,
        "memory" => limits.memory = text,
        "memory_high" => limits.memory_high = text,
        "swap" => limits.swap = text,
        "pids" => limits.pids = text,
        "io" => limits.io = vec![text],
        _ => panic!("no limit {field}"),
    }
    limits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_limit_is_refused_with_field_and_value() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let table: [(&str, &[&str]); 7] = [
        ("cpu", &["0", "-1", "abc", "1.5 CPUs", "9m", "inf", "99999999999"]),
        ("cpu_weight", &["0", "10001", "-5", "1.5", "heavy"]),
        ("memory", &["0", "-1", "1.5G B", "99999999999T", "4095", "1 parsec", "8EiB"]),
        ("memory_high", &["0", "lots", "4095"]),
        ("swap", &["-1", "1", "none"]),
        ("pids", &["0", "-1", "1.5", "4194304", "max"]),
        ("io", &["0", "-5", "fast", "/tmp:", "rbps=", "rbps=0", "speed=5M", "rbps=1M,rbps=2M", "/tmp:rbps"]),
    ];
    for (name, values) in table {
        for value in values {
            let field =
                if name == "io" { "spec.limits.io[0]".to_owned() } else { format!("spec.limits.{name}") };
            let spec = limited(spec(&["true"]), limit(name, value));
            expect_invalid_spec(&mut admin, spec, &field, &[&format!("{value:?}")]).await;
        }
    }
    expect_untouched(&worker, &mut admin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_whose_controller_is_missing_is_refused_with_the_remedy() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let there = worker.cgroup().map(|base| std::fs::read_to_string(base.join("cgroup.controllers")));
    let there = there.map(|text| text.expect("a group has controllers")).unwrap_or_default();
    let answer = run(&mut admin, limited(spec(&["true"]), limit("memory", "64MiB"))).await;
    if there.split_whitespace().any(|controller| controller == "memory") {
        let limits = answer.expect("the controller is there").limits_in_force.expect("read back");
        assert_eq!(limits.memory_max_bytes, Some(64 << 20));
        return;
    }
    let refused = answer.expect_err("nothing enforces it");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(details(&refused).0, "CONTROLLER_MISSING", "{refused}");
    assert!(refused.message().contains("memory"), "{refused}");
    let words = ["memory", "controller"];
    jobctl(&worker, &["run", "--memory-limit", "64MiB", "--", "true"]).with_code(125).saying(&words);
    expect_untouched(&worker, &mut admin).await;
}
