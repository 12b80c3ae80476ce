//! The dashboard (worker/grafana) against a real Prometheus that scrapes a loaded worker: each query of each panel is
//! taken, and has something to show. What takes a controller that this host may not have is looked at in the
//! `privileged` tests.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use jobworker_tests::Worker;
use jobworker_tests::metrics::address;
use jobworker_tests::prometheus::Prometheus;
use jobworker_tests::wait::until;
use serde_json::Value;

use crate::support::{jobctl, jobctl_as, start_script};

/// Told where the kernel gives a job's group its memory controller and PSI.
const OF_CONTROLLERS: [&str; 2] = ["jobworker_job_memory_bytes", "jobworker_job_pressure_seconds_total"];

/// The title and the query of each of its panels.
fn queries() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../worker/grafana/jobworker.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    queries
}

/// As Grafana does before it asks.
fn filled_in(query: &str) -> String {
    query.replace("$__rate_interval", "20s").replace("$instance", ".*")
}

#[test]
fn each_panel_has_something_to_show() {
    let worker = Worker::builder().args(&["--metrics-listen=127.0.0.1:0", "--metrics-per-job"]).start();
    let prometheus = Prometheus::scraping(&address(&worker));
    let load = || {
        let job = start_script(&worker, "echo something; exit 3");
        jobctl(&worker, &["stream", &job]).with_code(0);
        jobctl(&worker, &["start", "--", "/nonexistent"]).with_code(1);
        jobctl_as(&worker, "bob", &["stop", &job]).with_code(1);
        let mut stranger = TcpStream::connect(&worker.address).expect("connected");
        stranger.write_all(b"hello\n").expect("sent");
    };
    start_script(&worker, "exec sleep 600");
    let queries = queries();
    assert!(queries.len() > 20, "{queries:#?}");
    for (panel, query) in queries {
        let query = filled_in(&query);
        if OF_CONTROLLERS.iter().any(|name| query.contains(name)) {
            prometheus.query(&query);
            continue;
        }
        until(&format!("the panel {panel:?} shows {query}"), || {
            load();
            (!prometheus.query(&query).is_empty()).then_some(())
        });
    }
}
