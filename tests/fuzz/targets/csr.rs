//! A certificate request, as any client may send it.
#![no_main]

use jobworker_certs::{BadCsr, ClientNames, Csr, MAX_CSR_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    let csr = match Csr::from_der(der) {
        Ok(csr) => csr,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(matches!(error, BadCsr::TooLarge { .. }), der.len() > MAX_CSR_BYTES);
            return;
        }
    };
    // Only with its own key's signature does it come this far.
    assert_eq!(csr.key().fingerprint().to_string().len(), 64);
    if let Some(name) = csr.common_name() {
        assert!((1..=256).contains(&name.len()) && !name.chars().any(char::is_control), "{name:?}");
    }
    // Whoever is called otherwise does not get through.
    let nobody = ClientNames { common_name: Some("\u{0}"), uris: &[], dns_names: &[] };
    assert!(csr.common_name().is_none() || csr.for_client(nobody).is_err());
});
