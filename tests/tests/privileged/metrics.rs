//! Running jobs one by one, where the kernel gives their groups controllers and PSI.

use std::collections::BTreeMap;

use jobworker_tests::api::{JobSpec, Limits};
use jobworker_tests::client::{limited, shell, start};
use jobworker_tests::metrics::{address, samples};
use jobworker_tests::wait::{until, until_equal};

use crate::setup::Setup;

fn of_job(samples: &BTreeMap<String, f64>, id: &str) -> Vec<String> {
    samples.keys().filter(|name| name.contains(id)).cloned().collect()
}

#[tokio::test]
async fn a_running_job_is_told_by_what_it_uses_and_lacks() {
    let setup = Setup::with(&["--metrics-listen=127.0.0.1:0", "--metrics-per-job"]).await;
    let at = address(&setup.worker);
    let hungry = Limits { cpu: "0.1".to_owned(), memory: "64MiB".to_owned(), ..Limits::default() };
    let busy = JobSpec { name: "busy \"one\"\n".to_owned(), ..shell("while :; do :; done") };
    let named = JobSpec { name: "busy-one".to_owned(), ..busy.clone() };
    let mut client = setup.worker.admin().await;
    start(&mut client, busy).await.expect_err("such a name would not do as a label");
    let job = start(&mut client, limited(named, hungry)).await.expect("started");
    let value = |name: &str, more: &str| {
        let key = format!("{name}{{job_id=\"{}\",name=\"busy-one\"{more}}}", job.id);
        samples(&at).get(&key).copied()
    };
    // Held back nine tenths of the time: the kernel counts that as a lack of CPU.
    until("a tenth of a second without CPU", || {
        value("jobworker_job_pressure_seconds_total", ",resource=\"cpu\",stalled=\"some\"")
            .filter(|lack| *lack > 0.1)
    });
    assert!(value("jobworker_job_cpu_seconds_total", "").is_some_and(|cpu| cpu > 0.0));
    assert!(
        value("jobworker_job_memory_bytes", "").is_some_and(|bytes| (4096.0..67_108_864.0).contains(&bytes))
    );
    for resource in ["cpu", "memory", "io"] {
        for stalled in ["some", "full"] {
            let labels = format!(",resource=\"{resource}\",stalled=\"{stalled}\"");
            assert!(value("jobworker_job_pressure_seconds_total", &labels).is_some(), "{labels}");
        }
    }
    assert_eq!(samples(&at).get("jobworker_jobs{state=\"running\",outcome=\"\"}"), Some(&1.0));
    setup.worker.jobctl(&["stop", "--now", &job.id]);
    until_equal("series of the job that ended", &Vec::<String>::new(), || of_job(&samples(&at), &job.id));
    assert_eq!(samples(&at).get("jobworker_jobs{state=\"ended\",outcome=\"stopped\"}"), Some(&1.0));
    until("the end is counted", || {
        (samples(&at).get("jobworker_ended_jobs_total{outcome=\"stopped\"}") == Some(&1.0)).then_some(())
    });
}

#[tokio::test]
async fn jobs_are_not_told_one_by_one_unless_asked_for() {
    let setup = Setup::with(&["--metrics-listen=127.0.0.1:0"]).await;
    let at = address(&setup.worker);
    let job = start(&mut setup.worker.admin().await, shell("exec sleep 600")).await.expect("started");
    until("it is counted", || {
        (samples(&at).get("jobworker_jobs{state=\"running\",outcome=\"\"}") == Some(&1.0)).then_some(())
    });
    assert_eq!(of_job(&samples(&at), &job.id), Vec::<String>::new());
    setup.worker.jobctl(&["stop", "--now", &job.id]);
}
