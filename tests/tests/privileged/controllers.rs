//! A controller that is missing: what needs it is refused, everything else runs.

use jobworker_tests::Subtree;
use jobworker_tests::api::outcome::Ended;
use jobworker_tests::api::{Cause, Limits};
use jobworker_tests::census;
use jobworker_tests::client::{limited, shell, start};
use tonic::Code;

use crate::jobs::{assert_ended, assert_refused, finish};
use crate::setup::Setup;

#[tokio::test]
async fn a_limit_without_its_controller_is_refused() {
    let subtree = Subtree::with(&["io", "memory", "pids"]);
    let group = subtree.path().to_str().expect("UTF-8").to_owned();
    let setup = Setup::in_subtree(subtree).await;
    let mut client = setup.worker.admin().await;
    let by_cpu = [
        Limits { cpu: "0.5".to_owned(), ..Limits::default() },
        Limits { cpu_weight: "50".to_owned(), ..Limits::default() },
        Limits {
            cpu: "0.5".to_owned(),
            memory: "64MiB".to_owned(),
            pids: "5".to_owned(),
            ..Limits::default()
        },
    ];
    for limits in by_cpu {
        let refused = start(&mut client, limited(shell("echo ran"), limits)).await;
        let words = ["cpu controller", group.as_str(), "subtree_control"];
        assert_refused(refused, Code::FailedPrecondition, "CONTROLLER_MISSING", &words);
        assert!(setup.subtree.jobs().is_empty(), "a group is left");
        assert!(census::job_folders(&setup.worker.jobs_dir()).is_empty(), "a folder is left");
    }

    let limits = Limits { memory: "64MiB".to_owned(), pids: "5".to_owned(), ..Limits::default() };
    for spec in [shell("echo ran"), limited(shell("echo ran"), limits)] {
        let (job, seen) = finish(&mut client, spec).await;
        assert_ended(&job, Cause::Exited, Ended::ExitCode(0));
        assert_eq!(seen, "ran\n");
    }
    let warned = setup.worker.log().into_iter().any(|line| line.contains("WARN") && line.contains("cpu"));
    assert!(warned, "the log does not tell: {:#?}", setup.worker.log());
}
