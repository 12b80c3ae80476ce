//! The forms of the metrics: classic text for whoever does not ask for OpenMetrics, and nothing in it that `promtool`
//! objects to.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use jobworker_tests::Worker;
use jobworker_tests::metrics::{Answer, OPEN_METRICS, address, http, http_with};

use crate::support::{jobctl, start_script};

/// What a Prometheus of 2024 sends.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

fn content_type(answer: &Answer) -> String {
    let mut lines = answer.head.lines();
    let found = lines.find_map(|line| line.to_lowercase().strip_prefix("content-type: ").map(str::to_owned));
    found.unwrap_or_else(|| panic!("no content type: {answer:#?}"))
}

fn is_open_metrics(answer: &Answer) -> bool {
    assert_eq!(answer.status, 200, "{answer:#?}");
    let is_one = content_type(answer).starts_with("application/openmetrics-text; version=1.0.0");
    assert_eq!(answer.body.ends_with("# EOF\n"), is_one, "{answer:#?}");
    assert_eq!(answer.body.contains("# TYPE jobworker_calls counter\n"), is_one, "{answer:#?}");
    assert_eq!(answer.body.contains("# TYPE jobworker_calls_total counter\n"), !is_one, "{answer:#?}");
    assert!(is_one || content_type(answer).starts_with("text/plain; version=0.0.4"), "{answer:#?}");
    is_one
}

#[test]
fn each_scraper_gets_the_form_that_it_asks_for() {
    let worker = Worker::builder().args(&["--metrics-listen=127.0.0.1:0"]).start();
    let address = address(&worker);
    jobctl(&worker, &["list"]).with_code(0);
    assert!(!is_open_metrics(&http(&address, "GET", "/metrics")), "nothing is asked for");
    for (accept, expected) in [
        ("text/plain; version=0.0.4", false),
        ("text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.1", false),
        ("*/*", false),
        ("text/html, image/png;q=0.5", false),
        ("application/openmetrics-text;q=0, text/plain;q=0.1", false),
        ("application/openmetrics-text; version=9.0.0, text/plain", false),
        ("Application/OpenMetrics-Text ; Version=\"1.0.0\"", true),
        (OPEN_METRICS, true),
        (PROMETHEUS, true),
        ("nonsense;;;q=x,,", false),
    ] {
        let answer = http_with(&address, "GET", "/metrics", &[("Accept", accept)]);
        assert_eq!(is_open_metrics(&answer), expected, "{accept}");
    }
    // A list may stand in several lines.
    let two = [("Accept", "text/html"), ("Accept", OPEN_METRICS)];
    assert!(is_open_metrics(&http_with(&address, "GET", "/metrics", &two)));
}

#[test]
fn promtool_has_no_objection() {
    let worker = Worker::builder().args(&["--metrics-listen=127.0.0.1:0", "--metrics-per-job"]).start();
    start_script(&worker, "exec sleep 600");
    jobctl(&worker, &["run", "--", "true"]).with_code(0);
    let text = http(&address(&worker), "GET", "/metrics").body;
    assert!(text.contains("jobworker_job_cpu_seconds_total") || worker.cgroup().is_none(), "{text}");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/prometheus/usr/bin/promtool");
    assert!(program.exists(), "{} is missing: run scripts/prometheus", program.display());
    let mut command = Command::new(program);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().expect("it can be executed");
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && told.is_empty(), "{}\n{text}", String::from_utf8_lossy(&told));
}
