//! When the files of the PKI that are in force end.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::gauge::ConstGauge;

use super::collect::each;
use crate::tls::live::InForce;
use crate::tls::{Expiry, What};

/// What the worker serves by.
#[derive(Debug)]
pub struct Certificates(pub InForce);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct File {
    what: &'static str,
    subject: String,
    path: String,
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ends = self.0.expiries().into_iter().map(|expiry| {
            let Expiry { what, path, subject, not_after_unix_sec } = expiry;
            let what = match what {
                What::Server => "server",
                What::Intermediate => "intermediate",
                What::Ca => "ca",
                What::RevocationList => "revocation_list",
                What::RenewalCa => "renewal_ca",
            };
            (File { what, subject, path: path.display().to_string() }, ConstGauge::new(not_after_unix_sec))
        });
        let help = "When a certificate that is in use, or a revocation list, ends, in seconds since 1970";
        each(&mut encoder, "certificate_not_after_seconds", help, ends)
    }
}
