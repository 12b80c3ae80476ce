//! Who may do what: the file that decides it.

use super::Subject;
use super::finding::Finding;
use crate::policy::Policy;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let Some(path) = &subject.config.policy else {
        return vec![Finding::ok(
            "policy",
            "the built-in one: admin everything; user list, status, stream, wait",
        )];
    };
    let name = format!("policy {}", path.display());
    vec![match Policy::read(path) {
        Ok(_) => Finding::ok(name, "can be used"),
        Err(error) => {
            let remedy = format!("mend that line; jobworker policy check {} tells", path.display());
            Finding::fail(name, error.to_string(), remedy)
        }
    }]
}
