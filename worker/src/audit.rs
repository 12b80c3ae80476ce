//! The audit log: one line per decision, per connection that was refused and per job that has ended. It says who asked
//! from where for what, and which rule decided; never a value of the environment.
//!
//! It goes among the log, with target `audit`, whatever the log level; or as JSON wherever `--audit-log` says
//! (`destination`, `writer`). Every text is a string that is escaped and cut: nobody can write a line of their own.

mod destination;
mod ends;
mod file;
mod job_ended;
mod journald;
mod line;
mod text;
mod writer;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

pub use self::destination::{Destination, Unusable};
pub(crate) use self::ends::Ends;
pub(crate) use self::text::{argv, shorten};

use self::ends::{Book, Told};
use self::job_ended::JobEnded;
use self::line::{Decided, Event, Issued, Refused, Removed};
use self::writer::{Item, Writer};
use crate::identity::{ClientIdentity, NamelessCertificate};
use crate::job::JobId;
use crate::job::census::JobEnd;
use crate::renewal::Renewed;
use crate::tasks::Tasks;
use crate::tls::Peer;

/// The log target.
pub const TARGET: &str = "audit";

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

/// Whose a connection is that was refused.
pub(crate) enum Caller<'a> {
    /// Nobody said.
    Unknown,
    /// TLS has verified it.
    Verified(Holder<'a>),
    /// Its certificate says so, which is not good.
    Claimed(Holder<'a>),
}

/// The holder of a certificate, who may have no usable name in it.
pub(crate) type Holder<'a> = Result<&'a ClientIdentity, &'a NamelessCertificate>;

/// What was decided.
pub(crate) enum Decision<'a> {
    /// The policy said yes.
    Allowed { rule: &'a str },
    /// The policy said no.
    Denied { rule: &'a str, reason: &'a dyn Display },
    /// The policy was not against it, but it is nothing that can be done: a bad value, no such job.
    Invalid { reason: &'a dyn Display },
    /// The policy said yes, and it came to nothing.
    Failed { reason: &'a dyn Display },
}

/// Where lines go; not set: among the log.
static WRITER: OnceLock<Writer> = OnceLock::new();

/// Opens the audit log of this process, once; within a tokio runtime only. Until then, lines go to the log.
///
/// Returns who has to be told of jobs' ends.
///
/// # Errors
/// When the destination can't be written to, or SIGHUP not be listened for.
pub(crate) fn start(destination: &Destination, state_dir: &Path, tasks: &Tasks) -> anyhow::Result<Ends> {
    let book = Arc::<Book>::default();
    if let Some(output) = destination.open()? {
        let writer = Writer::start(destination.clone(), output, Arc::clone(&book), tasks);
        let writer = WRITER.get_or_init({
            let writer = writer.context("can't start the audit log's thread")?;
            || writer
        });
        let mut hangups = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
        tasks.spawn("reopening of the audit log", async move {
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

/// How many lines the audit log did not take, which are in the log instead.
pub(crate) fn lines_not_taken() -> u64 {
    writer::lines_not_taken()
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
        Decision::Failed { reason } => ("failed", None, Some(reason.to_string())),
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

/// Writes the line of a call that was denied because the client's certificate gives it no usable name.
pub(crate) fn nameless(certificate: &NamelessCertificate, address: SocketAddr, action: &str) {
    emit(&Event::Decision(Box::new(Decided {
        decision: "denied",
        rule: Some("a certificate names its holder".to_owned()),
        reason: Some(certificate.error.to_string()),
        serial: certificate.serial.clone(),
        fingerprint: certificate.fingerprint_sha256.clone(),
        peer: address.to_string(),
        action: shorten(action, MAX_TEXT_BYTES).into_owned(),
        ..Decided::default()
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
        new_not_after: line::rfc3339(renewed.not_after_unix_usec),
    })));
}

/// Writes the line of a connection that was refused before anything could be asked on it.
pub(crate) fn connection_refused(address: SocketAddr, reason: &dyn Display, caller: &Caller<'_>) {
    let refused = Refused {
        decision: "denied",
        reason: shorten(&reason.to_string(), MAX_TEXT_BYTES).into_owned(),
        peer: address.to_string(),
        action: "connect",
        ..Refused::default()
    };
    emit(&Event::Connection(Box::new(refused.by(caller))));
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::identity::ClientIdentity;

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
            connection_refused(peer().address, &hostile, &Caller::Unknown);
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
