//! The audit log: whether it can be written where it is to go.

use super::Subject;
use super::finding::Finding;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let destination = &subject.config.audit_log;
    let name = format!("audit log in {destination}");
    vec![match destination.check() {
        Ok(()) => Finding::ok(name, "it can be written to"),
        Err(error) => Finding::fail(
            name,
            error.to_string(),
            "--audit-log with a file in a folder that the worker may write to; or journald, stdout, log",
        ),
    }]
}
