//! The audit log: one line per decision, per connection that was refused and per job that has ended. It says who asked
//! from where for what, and which rule decided; never a value of the environment.
//!
//! It goes among the log, with target `audit`, whatever the log level; or as JSON wherever `--audit-log` says
//! ([`destination`], [`writer`]). Every text is a string that is escaped and cut: nobody can write a line of their own.

mod destination;
mod ends;
mod file;
mod job_ended;
mod journald;
mod line;
mod writer;

use std::borrow::Cow;
use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

pub use self::destination::{Destination, Unusable};
pub(crate) use self::ends::Ends;

use self::ends::{Book, Told};
use self::job_ended::JobEnded;
use self::journald::Fields;
use self::line::{Decided, Event, Issued, Refused, Removed};
use self::writer::{Item, Writer};
use crate::job::JobId;
use crate::job::census::JobEnd;
use crate::renewal::Renewed;
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

/// Where lines go; not set: among the log.
static WRITER: OnceLock<Writer> = OnceLock::new();

/// Opens the audit log of this process, once; within a tokio runtime only. Until then, lines go to the log.
///
/// Returns who has to be told of jobs' ends.
///
/// # Errors
/// When the destination can't be written to, or SIGHUP not be listened for.
pub(crate) fn start(destination: &Destination, state_dir: &Path) -> anyhow::Result<Ends> {
    let book = Arc::<Book>::default();
    if let Some(output) = destination.open()? {
        let writer = Writer::start(destination.clone(), output, Arc::clone(&book));
        let writer = WRITER.get_or_init({
            let writer = writer.context("can't start the audit log's thread")?;
            || writer
        });
        let mut hangups = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                writer.reopen();
            }
        });
    }
    Ok(Ends::new(state_dir, matches!(destination, Destination::File(_)), book))
}

/// Returns when all lines are written, or that takes too long: before the process ends. May block.
pub(crate) fn close() {
    if let Some(writer) = WRITER.get() {
        writer.close();
    }
}

fn emit(event: &Event) {
    match WRITER.get() {
        Some(writer) => writer.put(Item { json: event.to_json(), fields: event.fields(), told: None }),
        None => event.log(),
    }
}

/// Writes the line of a job's end, and then notes that.
fn emit_end(end: &JobEnd<'_>, told: Told, book: &Book) {
    let event = Event::JobEnd(Box::new(JobEnded::of(end)));
    match WRITER.get() {
        Some(writer) => writer.put(Item { json: event.to_json(), fields: event.fields(), told: Some(told) }),
        None => {
            event.log();
            book.note(&told);
        }
    }
}

/// Writes the line of a decision.
pub(crate) fn decision(peer: &Peer, asked: &Asked, decision: &Decision<'_>) {
    let (word, rule, reason) = match decision {
        Decision::Allowed { rule } => ("allowed", Some(*rule), None),
        Decision::Denied { rule, reason } => ("denied", Some(*rule), Some(reason.to_string())),
        Decision::Invalid { reason } => ("invalid", None, Some(reason.to_string())),
    };
    let cut = |text: &str| shorten(text, MAX_TEXT_BYTES).into_owned();
    let text = |text: &Option<String>| text.as_deref().map(cut);
    let identity = &peer.identity;
    emit(&Event::Decision(Box::new(Decided {
        decision: word,
        rule: rule.map(cut),
        reason: text(&reason),
        client: cut(&identity.name),
        common_name: cut(&identity.common_name),
        role: identity.role.as_deref().ok().map(cut),
        serial: cut(&identity.serial),
        fingerprint: identity.fingerprint_sha256.clone(),
        peer: peer.address.to_string(),
        action: cut(&asked.action),
        job: text(&asked.job),
        argv: asked.argv.clone(),
        limits: text(&asked.limits),
        user: text(&asked.user),
        signal: text(&asked.signal),
    })));
}

/// Writes the line of a certificate that was issued to a client: whose, by which one, and what names the new one in a
/// revocation list.
pub(crate) fn certificate_issued(peer: &Peer, rule: &str, renewed: &Renewed) {
    let cut = |text: &str| shorten(text, MAX_TEXT_BYTES).into_owned();
    let identity = &peer.identity;
    emit(&Event::CertificateIssued(Box::new(Issued {
        decision: "allowed",
        rule: cut(rule),
        client: cut(&identity.name),
        common_name: cut(&identity.common_name),
        role: identity.role.as_deref().ok().map(cut),
        serial: cut(&identity.serial),
        fingerprint: identity.fingerprint_sha256.clone(),
        peer: peer.address.to_string(),
        action: "renew",
        new_serial: renewed.serial.clone(),
        new_fingerprint: renewed.fingerprint_sha256.clone(),
        new_not_after: renewed.not_after.clone(),
    })));
}

/// Writes the line of a connection that was refused before anything could be asked on it.
pub(crate) fn connection_refused(address: SocketAddr, reason: &dyn Display) {
    emit(&Event::Connection(Refused {
        decision: "denied",
        reason: shorten(&reason.to_string(), MAX_TEXT_BYTES).into_owned(),
        peer: address.to_string(),
        action: "connect",
    }));
}

/// Writes the line of a removal that no client asked for.
pub(crate) fn retention(job: JobId, rule: &str) {
    emit(&Event::Removal(Removed {
        decision: "allowed",
        rule: format!("retention: {rule}"),
        by: "retention",
        action: "remove",
        job: job.to_string(),
    }));
}

impl Event {
    /// What it can be looked up by.
    fn fields(&self) -> Fields {
        match self {
            Self::Decision(decided) => Fields {
                event: "decision",
                action: Some(decided.action.clone()),
                client: Some(decided.client.clone()),
                job: decided.job.clone(),
                decision: Some(decided.decision),
            },
            Self::Connection(refused) => Fields {
                event: "connection",
                action: Some(refused.action.to_owned()),
                decision: Some(refused.decision),
                ..Fields::default()
            },
            Self::Removal(removed) => Fields {
                event: "removal",
                action: Some(removed.action.to_owned()),
                job: Some(removed.job.clone()),
                decision: Some(removed.decision),
                ..Fields::default()
            },
            Self::CertificateIssued(issued) => Fields {
                event: "certificate_issued",
                action: Some(issued.action.to_owned()),
                client: Some(issued.client.clone()),
                decision: Some(issued.decision),
                ..Fields::default()
            },
            Self::JobEnd(ended) => Fields {
                event: "job_end",
                client: ended.client.clone(),
                job: Some(ended.job.clone()),
                ..Fields::default()
            },
        }
    }
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
        Peer {
            identity: Arc::new(identity),
            address: ([127, 0, 0, 1], 1).into(),
            chain: crate::tls::Chain::example(),
        }
    }
}
