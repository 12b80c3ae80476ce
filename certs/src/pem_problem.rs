//! Why a file that should hold PEM does not: empty, DER, encrypted, or something else than was asked for.

use rustls::pki_types::pem;

/// What is wrong with a file in which no section of this label was found (`CERTIFICATE`, `PRIVATE KEY`, `X509 CRL`).
fn pem_problem(bytes: &[u8], label: &str) -> String {
    /// How DER begins: a SEQUENCE with a length of two or three bytes.
    const DER_BEGINNINGS: [&[u8]; 3] = [&[0x30, 0x81], &[0x30, 0x82], &[0x30, 0x83]];
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return "is empty".to_owned();
    }
    if DER_BEGINNINGS.iter().any(|begin| bytes.starts_with(begin)) {
        let tool = match label {
            "CERTIFICATE" => "x509",
            "X509 CRL" => "crl",
            _ => "pkey",
        };
        return format!("is DER, and PEM is needed (openssl {tool} -inform DER -in FILE -out NEW)");
    }
    let text = String::from_utf8_lossy(bytes);
    let labels: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .collect();
    if label == "PRIVATE KEY" && is_encrypted(&text) {
        return "is encrypted with a passphrase, and one without is needed: openssl pkey -in FILE -out NEW, and \
                chmod 600 NEW"
            .to_owned();
    }
    let wanted = format!("has no section \"-----BEGIN {label}-----\" (PEM)");
    // Of a file that is something else altogether, a hint is enough.
    match labels.first() {
        Some(first) if first.len() <= 40 => format!("{wanted}; it begins with {first:?}"),
        _ => wanted,
    }
}

/// What is wrong with a file that `error` is about, which came of looking for sections of this label in it; as what follows
/// "it".
#[must_use]
pub fn pem_fault(error: &pem::Error, bytes: &[u8], label: &str) -> String {
    match error {
        pem::Error::NoItemsFound => pem_problem(bytes, label),
        // Of an encrypted key in the older form, the headers are no base64.
        pem::Error::Base64Decode(_) if is_encrypted(&String::from_utf8_lossy(bytes)) => {
            pem_problem(bytes, label)
        }
        pem::Error::MissingSectionEnd { .. } => "ends in the middle of a section: it is not whole".to_owned(),
        pem::Error::IllegalSectionStart { .. } => {
            "is damaged: a line begins like a section's first, and ends otherwise".to_owned()
        }
        pem::Error::Base64Decode(_) => "is damaged: what stands in a section is not base64".to_owned(),
        pem::Error::Io(error) => format!("can't be read: {error}"),
        other => format!("is damaged, or not PEM: {other}"),
    }
}

fn is_encrypted(text: &str) -> bool {
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_file_is_told_from_the_others() {
        let pem = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let traditional = format!("{}Proc-Type: 4,ENCRYPTED\n", pem("EC PRIVATE KEY"));
        let (encrypted, plain) = (pem("ENCRYPTED PRIVATE KEY"), pem("PRIVATE KEY"));
        let other = "has no section \"-----BEGIN CERTIFICATE-----\" (PEM); it begins with \"PRIVATE KEY\"";
        let table: [(&[u8], &str, &str); 8] = [
            (b"", "CERTIFICATE", "is empty"),
            (b" \n\n", "X509 CRL", "is empty"),
            (&[0x30, 0x82, 1, 0], "CERTIFICATE", "is DER, and PEM is needed (openssl x509 "),
            (&[0x30, 0x81, 0x80], "X509 CRL", "is DER, and PEM is needed (openssl crl "),
            (encrypted.as_bytes(), "PRIVATE KEY", "is encrypted with a passphrase"),
            (traditional.as_bytes(), "PRIVATE KEY", "is encrypted with a passphrase"),
            (plain.as_bytes(), "CERTIFICATE", other),
            (b"certificate", "CERTIFICATE", "has no section \"-----BEGIN CERTIFICATE-----\" (PEM)"),
        ];
        for (bytes, label, words) in table {
            let problem = pem_problem(bytes, label);
            assert!(problem.starts_with(words), "{problem}");
        }
    }
}
