//! A client's certificate. TLS has verified it by then, but the CA's operator chose what it says.
#![no_main]

use jobworker::identity::{ClientIdentity, MAX_NAME_BYTES};
use jobworker::shim::control::Control;
use jobworker_certs::RoleOid;
use libfuzzer_sys::fuzz_target;

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

fuzz_target!(|der: &[u8]| {
    let Ok(identity) = ClientIdentity::from_der(der, &RoleOid::default()) else { return };
    assert!(is_name(&identity.name), "{:?}", identity.name);
    assert!(identity.common_name.is_empty() || is_name(&identity.common_name), "{:?}", identity.common_name);
    if let Ok(role) = &identity.role {
        assert!((1..=127).contains(&role.len()) && !role.chars().any(char::is_control), "{role:?}");
    }
    let is_hex = |text: &str| text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    assert!(is_hex(&identity.serial) && (identity.serial == "0" || !identity.serial.starts_with('0')));
    assert!(is_hex(&identity.fingerprint_sha256) && identity.fingerprint_sha256.len() == 64);
    assert!(!identity.not_after().is_empty());
    jobworker_fuzz::json::<jobworker::job::Owner>(&serde_json::to_vec(&identity.owner()).unwrap()).unwrap();
    // Whatever the name, a stop by this client fits into one write.
    let stop = Control::Stop { signal: 64, grace_msec: u64::MAX, by: identity.name };
    stop.encode().expect("a control line holds the longest name");
});
