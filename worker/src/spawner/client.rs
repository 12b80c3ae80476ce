//! The worker's side of the spawner's socket.

mod attachment;
mod error;
mod keeper;
mod launch;
mod retire;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::error::SpawnerError;

use self::attachment::Attachment;
use self::retire::retire;
use super::defaults::JobDefaults;
use super::protocol::{Attached, MAX_LINE_BYTES, RemoveReply, Request, StartReply};
use crate::config::log;
use crate::job::spec::FORMAT_VERSION;
use crate::job::{JobId, Spec, State};
use crate::tasks::Tasks;

/// How long the spawner may take to answer. A birth takes milliseconds; a host that is out of memory or disk, longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a removal may take: a slow disk deletes some GiB a second, and outputs have no limit but the disk.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(600);

/// What a spawner needs to know that the worker starts itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the jobs' folders.
    pub state_dir: PathBuf,
    /// Where the spawner listens.
    pub socket: PathBuf,
    /// The delegated subtree; none: to be found.
    pub cgroup: Option<PathBuf>,
    /// OS user of jobs that name none; none: the worker's own.
    pub default_user: Option<String>,
    /// Other OS users that jobs may run as.
    pub allow_users: Vec<String>,
    /// What jobs begin with.
    pub defaults: JobDefaults,
    /// How it logs, to the same stderr as the worker.
    pub log: log::Settings,
}

/// A way to the spawner. Attached to it for as long as this lives, and anew when a new spawner has taken its place.
pub struct SpawnerClient {
    shared: Arc<Shared>,
    /// Ends the task that stays attached.
    _keeper: Option<DropGuard>,
}

/// What those who start jobs and the [`keeper`] have in common.
struct Shared {
    socket: PathBuf,
    /// How to start one where none is; none: a service manager does.
    own: Option<Settings>,
    attachment: Mutex<Option<Attachment>>,
    has_launched: AtomicBool,
}

/// What came back.
struct Answer<A> {
    line: A,
    /// What came with it, behind the line.
    rest: Vec<u8>,
    connection: UnixStream,
}

/// How often a spawner was asked before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Once,
    /// The one that was asked first has gone, and nobody knows what it did.
    Again,
}

impl SpawnerClient {
    /// Attaches to the spawner that a service manager has started.
    ///
    /// # Errors
    /// When it can't be reached.
    pub async fn attach(socket: &Path) -> Result<(Self, Attached), SpawnerError> {
        Self::new(Shared {
            socket: socket.to_owned(),
            own: None,
            attachment: Mutex::default(),
            has_launched: AtomicBool::new(false),
        })
        .await
    }

    /// Attaches to the spawner that listens on the socket; where none does, starts one that lives as long as a worker
    /// is attached or a job runs.
    ///
    /// # Errors
    /// When it can't be reached, or started.
    pub async fn connect_or_start(settings: Settings) -> Result<(Self, Attached), SpawnerError> {
        let socket = settings.socket.clone();
        Self::new(Shared {
            socket,
            own: Some(settings),
            attachment: Mutex::default(),
            has_launched: AtomicBool::new(false),
        })
        .await
    }

    async fn new(shared: Shared) -> Result<(Self, Attached), SpawnerError> {
        let attached = shared.attach_now().await?;
        Ok((Self { shared: Arc::new(shared), _keeper: None }, attached))
    }

    /// From now on a spawner that goes is followed by another at once, as far as that is ours to do, or attached to as
    /// soon as it is there. Until `shutdown`: a worker that goes down needs none.
    #[must_use]
    pub fn stay_attached(self, shutdown: &CancellationToken, tasks: &Tasks) -> Self {
        let until = shutdown.child_token();
        let keep = keeper::keep(Arc::clone(&self.shared));
        let kept = until.clone().run_until_cancelled_owned(keep);
        tasks.spawn("attachment to the spawner", async { kept.await.unwrap_or(()) });
        Self { _keeper: Some(until.drop_guard()), ..self }
    }

    /// Whether the last attachment is to a spawner that was started for it.
    pub fn has_launched(&self) -> bool {
        self.shared.has_launched.load(Ordering::Acquire)
    }

    /// Asks for a job. Returns when its command has been executed, or could not be; and its state, where the shim told that,
    /// too.
    ///
    /// # Errors
    /// When the spawner can't be reached or gives no answer. Then the job may run all the same: its folder tells.
    pub async fn start(&self, spec: &Spec) -> Result<(StartReply, Option<State>), SpawnerError> {
        let request = Request::Start(Box::new(spec.clone()));
        let (Answer { line, rest, .. }, _asked) = self.order(&request, PATIENCE).await?;
        // An older build's shim says nothing more, and a long state may come in two parts.
        Ok((line, serde_json::from_slice(&rest).ok()))
    }

    /// Asks for an ended job's removal. Returns when its files are deleted, or could not be.
    ///
    /// # Errors
    /// When the spawner can't be reached or gives no answer. Then the job may be removed all the same: its folder
    /// tells.
    pub async fn remove(&self, job: JobId) -> Result<RemoveReply, SpawnerError> {
        let (answer, asked) = self.order(&Request::Remove(job), REMOVAL_PATIENCE).await?;
        match (answer.line, asked) {
            // It was there when it was asked for the first time.
            (RemoveReply::NoSuchJob, Asked::Again) => Ok(RemoveReply::Removed),
            (reply, _) => Ok(reply),
        }
    }

    /// Asks a spawner to which this is attached; if need be, to one that is started for it.
    async fn order<A: DeserializeOwned>(
        &self,
        request: &Request,
        patience: Duration,
    ) -> Result<(Answer<A>, Asked), SpawnerError> {
        let shared = &self.shared;
        shared.ensure_attached().await?;
        match shared.ask(request, patience).await {
            // It has gone since. Whether or not it got so far as to fork: under this id there is one job.
            Err(error) if error.is_of_its_end() => {
                shared.attach_now().await?;
                Ok((shared.ask(request, patience).await?, Asked::Again))
            }
            answer => Ok((answer?, Asked::Once)),
        }
    }
}

impl Shared {
    /// Returns once there is no attachment, or another one than there was.
    async fn gone(&self) {
        let gone = self.attachment.lock().await.as_ref().map(|attachment| attachment.gone.clone());
        if let Some(gone) = gone {
            gone.cancelled().await;
        }
    }

    /// A spawner that went away has a successor, or gets one.
    async fn ensure_attached(&self) -> Result<(), SpawnerError> {
        let mut attachment = self.attachment.lock().await;
        if attachment.as_ref().is_none_or(|attachment| attachment.gone.is_cancelled()) {
            *attachment = Some(self.new_attachment().await?.0);
        }
        Ok(())
    }

    async fn attach_now(&self) -> Result<Attached, SpawnerError> {
        // Held meanwhile: of several who miss the spawner, one starts a new one.
        let mut attachment = self.attachment.lock().await;
        let (new, attached) = self.new_attachment().await?;
        *attachment = Some(new);
        Ok(attached)
    }

    async fn new_attachment(&self) -> Result<(Attachment, Attached), SpawnerError> {
        let (mut attached, mut connection) = self.find_or_launch().await?;
        if attached.format < FORMAT_VERSION && self.own.is_some() {
            let version = &attached.version;
            tracing::info!(
                version,
                "the spawner is an older build's: another takes its place, and jobs go on"
            );
            let retired = retire(&connection).await;
            retired.map_err(|reason| SpawnerError::Retire { socket: self.socket.clone(), reason })?;
            (attached, connection) = self.find_or_launch().await?;
        }
        Ok((Attachment::new(connection, self.socket.clone()), attached))
    }

    async fn find_or_launch(&self) -> Result<(Attached, UnixStream), SpawnerError> {
        let Answer { line, connection, .. } = match (self.ask(&Request::Attach, PATIENCE).await, &self.own) {
            (Err(error), Some(settings)) if error.is_of_its_end() => {
                // Where it ends instead, another was faster: one that an earlier worker had begun to start.
                let launched = launch::launch(settings).await;
                self.has_launched.store(launched.is_ok(), Ordering::Release);
                let answer = self.ask(&Request::Attach, PATIENCE).await;
                answer.map_err(|error| launched.err().unwrap_or(error))?
            }
            (answer, _) => answer?,
        };
        Ok((line, connection))
    }

    /// One line there, one line back, on a connection of its own.
    async fn ask<A: DeserializeOwned>(
        &self,
        request: &Request,
        patience: Duration,
    ) -> Result<Answer<A>, SpawnerError> {
        let mut connection = UnixStream::connect(&self.socket)
            .await
            .map_err(|reason| SpawnerError::Connect { socket: self.socket.clone(), reason })?;
        let answered = timeout(patience, exchange(&mut connection, request)).await;
        match answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok((line, rest)) => Ok(Answer { line, rest, connection }),
            Err(reason) => Err(SpawnerError::NoAnswer { socket: self.socket.clone(), reason }),
        }
    }
}

/// The answer's line, and what came with it.
async fn exchange<A: DeserializeOwned>(
    connection: &mut UnixStream,
    request: &impl Serialize,
) -> io::Result<(A, Vec<u8>)> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    if line.len() > MAX_LINE_BYTES {
        let length = line.len();
        return Err(io::Error::other(format!(
            "a request of {length} bytes; it takes at most {MAX_LINE_BYTES}"
        )));
    }
    connection.write_all(&line).await?;
    line.clear();
    let mut reader = BufReader::new(connection.take(MAX_LINE_BYTES as u64));
    reader.read_until(b'\n', &mut line).await?;
    match line.last() {
        Some(b'\n') => Ok((serde_json::from_slice(&line)?, reader.buffer().to_vec())),
        Some(_) if line.len() == MAX_LINE_BYTES => {
            Err(io::Error::other(format!("a line of more than {MAX_LINE_BYTES} bytes")))
        }
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests;
