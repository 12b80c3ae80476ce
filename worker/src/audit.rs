//! The audit log: one structured line per decision and per connection that was refused, with target `audit`, whatever
//! the log level. It says who asked from where for what, and which rule decided; never a value of the environment.
//!
//! Every text goes into a field as a string, which both log formats escape: nobody can write a line of their own.

use std::borrow::Cow;
use std::fmt::{Display, Write};
use std::net::SocketAddr;

use crate::job::JobId;
use crate::tls::Peer;

/// The log target.
pub const TARGET: &str = "audit";

/// Bytes of a command line that are kept.
const MAX_ARGV_BYTES: usize = 4096;

/// Bytes of any other text that are kept.
const MAX_TEXT_BYTES: usize = 1024;

/// What a client asked for, as it asked for it: nothing of it has to be valid.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// The verb, or the method's path where it is none of ours.
    pub(crate) action: String,
    /// The job's id or a prefix of it.
    pub(crate) job: Option<String>,
    /// The command line, from [`argv`].
    pub(crate) argv: Option<String>,
    /// The limits' texts.
    pub(crate) limits: Option<String>,
    /// The OS user to run as.
    pub(crate) user: Option<String>,
    /// The signal to send.
    pub(crate) signal: Option<String>,
}

/// What was decided.
pub(crate) enum Decision<'a> {
    /// The policy said yes.
    Allowed { rule: &'a str },
    /// The policy said no.
    Denied { rule: &'a str, reason: &'a dyn Display },
    /// The policy was not against it, but it is nothing that can be done: a bad value, no such job.
    Invalid { reason: &'a dyn Display },
}

/// Writes the line of a decision.
pub(crate) fn decision(peer: &Peer, asked: &Asked, decision: &Decision<'_>) {
    let (word, rule, reason) = match decision {
        Decision::Allowed { rule } => ("allowed", Some(*rule), None),
        Decision::Denied { rule, reason } => ("denied", Some(*rule), Some(reason.to_string())),
        Decision::Invalid { reason } => ("invalid", None, Some(reason.to_string())),
    };
    let text = |text: &Option<String>| text.as_deref().map(|text| shorten(text, MAX_TEXT_BYTES).into_owned());
    let identity = &peer.identity;
    tracing::info!(
        target: TARGET,
        decision = word,
        rule,
        reason = text(&reason),
        client = identity.name.as_str(),
        common_name = identity.common_name.as_str(),
        role = identity.role.as_deref().ok(),
        serial = identity.serial.as_str(),
        fingerprint = identity.fingerprint_sha256.as_str(),
        peer = peer.address.to_string(),
        action = shorten(&asked.action, MAX_TEXT_BYTES).as_ref(),
        job = text(&asked.job),
        argv = asked.argv.as_deref(),
        limits = text(&asked.limits),
        user = text(&asked.user),
        signal = text(&asked.signal),
        "decision"
    );
}

/// Writes the line of a certificate that was issued to a client: whose, by which one, and what names the new one in a
/// revocation list.
pub(crate) fn certificate_issued(peer: &Peer, rule: &str, serial: &str, fingerprint: &str, not_after: &str) {
    let identity = &peer.identity;
    tracing::info!(
        target: TARGET,
        decision = "allowed",
        rule,
        client = identity.name.as_str(),
        common_name = identity.common_name.as_str(),
        role = identity.role.as_deref().ok(),
        serial = identity.serial.as_str(),
        fingerprint = identity.fingerprint_sha256.as_str(),
        peer = peer.address.to_string(),
        action = "renew",
        new_serial = serial,
        new_fingerprint = fingerprint,
        new_not_after = not_after,
        "certificate issued"
    );
}

/// Writes the line of a connection that was refused before anything could be asked on it.
pub(crate) fn connection_refused(address: SocketAddr, reason: &dyn Display) {
    tracing::info!(
        target: TARGET,
        decision = "denied",
        reason = shorten(&reason.to_string(), MAX_TEXT_BYTES).as_ref(),
        peer = address.to_string(),
        action = "connect",
        "decision"
    );
}

/// Writes the line of a removal that no client asked for.
pub(crate) fn retention(job: JobId, rule: &str) {
    tracing::info!(
        target: TARGET,
        decision = "allowed",
        rule = format!("retention: {rule}"),
        by = "retention",
        action = "remove",
        job = job.to_string(),
        "decision"
    );
}

/// A command line as a shell would take it, in at most about 4 KiB. Bytes that are not UTF-8 become U+FFFD.
pub(crate) fn argv<'a>(words: impl Iterator<Item = &'a [u8]>) -> String {
    let (mut line, mut left_out_bytes) = (String::new(), 0);
    for word in words {
        let room = MAX_ARGV_BYTES.saturating_sub(line.len());
        let kept = &word[..word.len().min(room)];
        left_out_bytes += word.len() - kept.len();
        if room == 0 {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        push_quoted(&mut line, &String::from_utf8_lossy(kept));
    }
    if left_out_bytes > 0 {
        // Writing to a String can't fail.
        let _ = write!(line, " … ({left_out_bytes} more bytes)");
    }
    line
}

fn push_quoted(line: &mut String, word: &str) {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        line.push_str(word);
    } else {
        let _ = write!(line, "'{}'", word.replace('\'', r"'\''"));
    }
}

/// The text, or so much of it as fits into `max_bytes`, and a mark that there was more.
pub(crate) fn shorten(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max_bytes);
    Cow::Owned(format!("{}… ({} bytes in all)", &text[..end], text.len()))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::identity::ClientIdentity;

    #[test]
    fn command_lines_are_quoted_and_cut() {
        let words: [&[u8]; 5] = [b"/bin/sh", b"-c", b"echo 'hi' >x", b"", b"\xff"];
        assert_eq!(argv(words.into_iter()), r"/bin/sh -c 'echo '\''hi'\'' >x' '' '�'");
        let long = vec![b'x'; 5 << 20];
        let line = argv([&b"echo"[..], &long, b"more"].into_iter());
        assert!(line.len() < MAX_ARGV_BYTES + 100, "{}", line.len());
        assert!(line.ends_with(" … (5238792 more bytes)"), "{}", &line[4080..]);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(
            shorten("grün", 4),
            "grün".get(..4).map(|cut| format!("{cut}… (5 bytes in all)")).unwrap()
        );
        assert_eq!(shorten("grün", 3), "gr… (5 bytes in all)");
        assert_eq!(shorten("grün", 5), "grün");
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_can_write_a_line_of_their_own() {
        let lines = Lines::default();
        let writer = lines.clone();
        let text = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let hostile = "x\nINFO audit: decision=\"allowed\"\r\u{1b}[2J";
        let asked =
            Asked { job: Some(hostile.to_owned()), argv: Some(hostile.to_owned()), ..Asked::default() };
        tracing::subscriber::with_default(text, || {
            decision(&peer(), &asked, &Decision::Invalid { reason: &hostile });
            connection_refused(peer().address, &hostile);
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains(['\r', '\u{1b}']), "{text}");
        assert!(text.contains(r#"job="x\nINFO audit: decision=\"allowed\"\r\u{1b}[2J""#), "{text}");
    }

    fn peer() -> Peer {
        let identity = ClientIdentity {
            name: "alice".to_owned(),
            common_name: "alice".to_owned(),
            role: Ok("admin".to_owned()),
            serial: "1".to_owned(),
            fingerprint_sha256: "00".to_owned(),
            uris: Vec::new(),
            dns_names: Vec::new(),
            not_after_unix_sec: 0,
        };
        Peer { identity: Arc::new(identity), address: ([127, 0, 0, 1], 1).into() }
    }
}
