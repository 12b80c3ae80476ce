//! What jobs begin with, where the worker starts its spawner itself. Another spawner has been told, and looks itself.

use super::Subject;
use super::finding::Finding;
use crate::config::Spawner;
use crate::shim::attributes::Attributes;

const SUBJECT: &str = "jobs' priorities and limits";

/// Gives a process all of it, as the spawner does.
pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let Spawner::Own(settings) = &subject.config.spawner else { return Vec::new() };
    vec![match Attributes::new(&settings.defaults).and_then(|attributes| attributes.try_out()) {
        Ok(lacking) if lacking.is_empty() => Finding::ok(SUBJECT, "as defined"),
        Ok(lacking) => Finding::warn(
            SUBJECT,
            format!("jobs get what comes next to {}", lacking.join(", ")),
            "start the worker as root, or with what jobs should get: it may not change that",
        ),
        Err(error) => {
            let remedy = "change --default-rlimit and --default-oom-score-adj; run as root to raise limits";
            Finding::fail(SUBJECT, format!("{error:#}"), remedy)
        }
    }]
}
