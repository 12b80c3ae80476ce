//! The CA that renews clients' certificates, where one is given.

use std::error::Error;

use super::Subject;
use super::finding::Finding;
use crate::renewal::Renewal;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let Some(settings) = &subject.config.renewal else { return Vec::new() };
    let name = settings.ca.display().to_string();
    let mend = "mend that; or another: jobworker certs init --dir DIR --name \"renewal CA\"";
    vec![match Renewal::load(settings).map(|renewal| renewal.trial(&subject.config.tls)) {
        Ok(Ok(())) => Finding::ok(name, format!("renews certificates, for {} days each", settings.days)),
        Ok(Err(reason)) => Finding::warn(
            name,
            format!("this worker would refuse the certificates that it renews: {reason}"),
            "add that CA to --ca, and its list to --crl",
        ),
        Err(error) => {
            let causes = std::iter::successors(error.source(), |error| (*error).source());
            let words = causes.fold(error.to_string(), |words, cause| format!("{words}: {cause}"));
            Finding::fail(name, words, mend)
        }
    }]
}
