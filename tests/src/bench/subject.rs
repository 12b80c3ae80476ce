//! The product under measurement: a worker of one's own, and a client like jobctl beside it.

use std::hint::black_box;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::Settings;
use crate::api::job_worker_client::JobWorkerClient;
use crate::api::{Job, JobSpec, StatusRequest};
use crate::client::{self, Client};
use crate::{Subtree, Worker, census};

/// As jobctl has them.
const WINDOW_BYTES: u32 = 16 << 20;
const FRAME_BYTES: u32 = 1 << 20;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is deleted slows down who makes files next, on ext4 for minutes: nothing is, before all is measured.
static SCRATCH: Mutex<Option<TempDir>> = Mutex::new(None);

/// A folder that stays until [`clean`].
fn lasting_folder() -> anyhow::Result<TempDir> {
    let mut scratch = SCRATCH.lock().expect("no holder panics");
    let scratch = match &mut *scratch {
        Some(scratch) => scratch,
        none => none.insert(tempfile::tempdir()?),
    };
    Ok(tempfile::Builder::new().disable_cleanup(true).tempdir_in(scratch.path())?)
}

/// Removes what all workers have left behind.
pub(super) fn clean() {
    drop(SCRATCH.lock().expect("no holder panics").take());
}

/// A worker and a client's runtime. Dropped in this order.
pub(super) struct Subject {
    /// Of one thread, as jobctl's.
    pub(super) runtime: Runtime,
    pub(super) worker: Worker,
    _subtree: Option<Subtree>,
}

impl Subject {
    pub(super) fn new(settings: Settings) -> anyhow::Result<Self> {
        Self::with(settings, &[], &[])
    }

    pub(super) fn with(settings: Settings, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let subtree = settings.controllers.then(Subtree::new);
        let mut builder = Worker::builder().args(args).state(&Arc::new(lasting_folder()?));
        if let Some(subtree) = &subtree {
            builder = builder.cgroup(&subtree.path());
        }
        for (key, value) in env {
            builder = builder.env(key, value);
        }
        let runtime = Builder::new_current_thread().enable_all().build().context("a runtime")?;
        Ok(Self { runtime, worker: builder.start(), _subtree: subtree })
    }

    /// A connection of the admin's.
    pub(super) fn connect(&self) -> anyhow::Result<Client> {
        self.runtime.block_on(connect(&self.worker))
    }

    /// Runs a job: how long until the start was answered, and until its end was.
    pub(super) fn run(&self, client: &Client, spec: JobSpec) -> anyhow::Result<(Duration, Duration)> {
        let mut client = client.clone();
        let times = self.runtime.block_on(async {
            let asked = Instant::now();
            let job = client::start(&mut client, spec).await?;
            let started = asked.elapsed();
            client::wait(&mut client, &job.id).await?;
            Ok::<_, tonic::Status>((started, asked.elapsed()))
        })?;
        self.settle(0)?;
        Ok(times)
    }

    pub(super) fn start(&self, client: &mut Client, spec: JobSpec) -> anyhow::Result<Job> {
        Ok(self.runtime.block_on(client::start(client, spec))?)
    }

    pub(super) fn wait(&self, client: &mut Client, job: &Job) -> anyhow::Result<Job> {
        Ok(self.runtime.block_on(client::wait(client, &job.id))?)
    }

    /// Waits until so much of a job's output is stored.
    pub(super) fn wait_for_output(&self, client: &mut Client, job: &Job, bytes: u64) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let request = StatusRequest { job: job.id.clone() };
            let status = self.runtime.block_on(client.status(request))?.into_inner().job.context("a job")?;
            if status.output_bytes >= bytes {
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "{} of {bytes} bytes are stored", status.output_bytes);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until no more than so many shims are there: whatever is measured next has the machine for itself. Spins,
    /// because a sleep would make the next start one after a gap.
    pub(super) fn settle(&self, shims: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.shims().len() > shims {
            ensure!(started.elapsed() < PATIENCE, "shims stay");
        }
        Ok(())
    }

    /// The pids of the shims.
    pub(super) fn shims(&self) -> Vec<u32> {
        let all = census::children(self.worker.spawner_pid());
        all.into_iter().filter(|shim| !census::is_spare(*shim)).collect()
    }

    /// A line of the worker's /proc/PID/status that counts KiB.
    pub(super) fn kib(&self, name: &str) -> anyhow::Result<f64> {
        kib(self.worker.pid(), name)
    }
}

/// A line of /proc/PID/status that counts KiB.
pub(super) fn kib(pid: u32, name: &str) -> anyhow::Result<f64> {
    let line = census::status_line(pid, name).with_context(|| format!("process {pid} has no {name}"))?;
    let number = line.split_whitespace().next().context("a number")?;
    number.parse().with_context(|| format!("{name}: {line}"))
}

/// A connection of the admin's, set up as jobctl sets it up.
pub(super) async fn connect(worker: &Worker) -> anyhow::Result<Client> {
    Ok(JobWorkerClient::new(channel(worker).await?))
}

/// The channel below.
pub(super) async fn channel(worker: &Worker) -> anyhow::Result<Channel> {
    // And like jobctl it keeps large blocks that are freed, see its follow.rs.
    drop(black_box(Vec::<u8>::with_capacity(WINDOW_BYTES as usize)));
    let identity = worker.pki.identity("alice");
    let tls = client::tls(&worker.pki.ca(), Some(&identity), &[&rustls::version::TLS13]);
    let (connector, address) = (TlsConnector::from(Arc::new(tls)), worker.address.clone());
    Endpoint::from_shared(format!("http://{address}"))?
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let (connector, address) = (connector.clone(), address.clone());
            async move {
                let tcp = TcpStream::connect(&address).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::try_from("localhost").expect("a name");
                Ok::<_, io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
            }
        }))
        .await
        .context("connect to the worker")
}
