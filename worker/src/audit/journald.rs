//! The audit log in the journal: `journalctl -t jobworker-audit JOBWORKER_CLIENT=alice`.
//!
//! By the native protocol, a datagram a line (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>). A line is shorter than
//! what a socket takes at once, so nothing ever has to be handed over in a file.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use super::line::{Event, MAX_LINE_BYTES};
use super::writer::Item;

const SOCKET: &str = "/run/systemd/journal/socket";

/// What `journalctl -t` selects by.
const IDENTIFIER: &str = "jobworker-audit";

/// The way to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

/// What a line can be looked up by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) event: &'static str,
    pub(super) action: Option<String>,
    pub(super) client: Option<String>,
    pub(super) job: Option<String>,
    pub(super) decision: Option<&'static str>,
}

impl Journal {
    /// # Errors
    /// When there is no journal.
    pub(super) fn open() -> io::Result<Self> {
        Self::at(SOCKET.into())
    }

    fn at(path: PathBuf) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // Tried, and let go of again: the journal may be restarted.
        UnixDatagram::unbound()?
            .connect(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self { socket, path })
    }

    /// # Errors
    /// When the journal does not take it.
    pub(super) fn send(&self, item: &Item) -> io::Result<()> {
        self.socket.send_to(&datagram(item), &self.path).map(|_all| ())
    }
}

fn datagram(item: &Item) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(item.json.len() + 512);
    let Fields { event, action, client, job, decision } = &item.fields;
    let fields = [
        ("MESSAGE", Some(item.json.trim_end_matches('\n'))),
        ("SYSLOG_IDENTIFIER", Some(IDENTIFIER)),
        ("PRIORITY", Some("6")),
        ("JOBWORKER_EVENT", Some(*event)),
        ("JOBWORKER_ACTION", action.as_deref()),
        ("JOBWORKER_CLIENT", client.as_deref()),
        ("JOBWORKER_JOB", job.as_deref()),
        ("JOBWORKER_DECISION", *decision),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            push(&mut datagram, name, value);
        }
    }
    debug_assert!(datagram.len() < 2 * MAX_LINE_BYTES, "{} bytes", datagram.len());
    datagram
}

/// With its length, so that no value can begin a field of its own.
fn push(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    datagram.push(b'\n');
    datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

impl Event {
    /// What it can be looked up by.
    pub(super) fn fields(&self) -> Fields {
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
                client: refused.client.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As journald reads it.
    fn parsed(mut datagram: &[u8]) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut fields = Vec::new();
        while !datagram.is_empty() {
            let end = datagram.iter().position(|byte| *byte == b'\n').unwrap();
            let (name, rest) = (text(&datagram[..end]), &datagram[end + 1..]);
            assert!(!name.contains('='), "{name}");
            let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
            fields.push((name, text(&rest[8..8 + length])));
            assert_eq!(rest[8 + length], b'\n');
            datagram = &rest[8 + length + 1..];
        }
        fields
    }

    #[test]
    fn a_line_arrives_whole_with_its_fields_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(Journal::at(path.clone()).unwrap_err().to_string().contains("/socket: "));
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(path).unwrap();
        let fields = Fields {
            event: "decision",
            action: Some("start".to_owned()),
            client: Some("x\nJOBWORKER_DECISION=allowed\n".to_owned()),
            job: None,
            decision: Some("denied"),
        };
        let json = format!("{{\"argv\":\"{}\"}}\n", "x".repeat(MAX_LINE_BYTES - 100));
        journal.send(&Item { json: json.clone(), fields, told: None }).unwrap();
        let mut datagram = vec![0; 1 << 20];
        let length = journald.recv(&mut datagram).unwrap();
        let fields = parsed(&datagram[..length]);
        let expected = [
            ("MESSAGE", json.trim_end()),
            ("SYSLOG_IDENTIFIER", "jobworker-audit"),
            ("PRIORITY", "6"),
            ("JOBWORKER_EVENT", "decision"),
            ("JOBWORKER_ACTION", "start"),
            ("JOBWORKER_CLIENT", "x\nJOBWORKER_DECISION=allowed\n"),
            ("JOBWORKER_DECISION", "denied"),
        ];
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(fields, expected);
    }
}
