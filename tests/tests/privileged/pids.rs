//! A fork bomb.

use std::time::{Duration, Instant};

use jobworker_tests::api::{Cause, Limits};
use jobworker_tests::binaries::binary;
use jobworker_tests::client::{limited, spec, start};

use crate::jobs::{assert_gone, members, outcome, stop, until_status};
use crate::setup::Setup;

#[tokio::test]
async fn a_fork_bomb_is_contained_and_stopped() {
    let setup = Setup::new().await;
    let mut client = setup.worker.admin().await;
    let actor = binary("actor");
    let bomb = spec(&[actor.to_str().expect("a UTF-8 path"), "bomb"]);
    let limits = Limits { pids: "32".to_owned(), ..Limits::default() };
    let job = start(&mut client, limited(bomb, limits)).await.expect("the job starts");
    until_status(&mut client, &job.id, |job| {
        let (processes, usage) = (job.processes.expect("a count"), job.usage.clone().expect("usage"));
        assert!(processes <= 32 && usage.pids_peak <= Some(32), "{job:#?}");
        (processes > 25 && usage.pids_denied > Some(0)).then_some(())
    })
    .await;

    let bombers = members(&job);
    let asked = Instant::now();
    let job = stop(&mut client, &job.id, Some(2_000)).await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(outcome(&job).cause(), Cause::Stopped);
    assert_eq!(job.limits_in_force.as_ref().and_then(|limits| limits.pids_max), Some(32));
    assert_gone(&job, &bombers);
}
