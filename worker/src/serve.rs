//! `jobworker serve`: puts the parts together, serves until a signal comes, and takes its leave.
//!
//! Going down (SIGTERM, SIGINT) the listener is closed, followers and waiters are told that the worker goes and their
//! job stays, short calls finish, and within [`DRAIN_TIMEOUT`] the process ends. A second signal ends it at once.

mod connections;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jobworker_proto::v1::FILE_DESCRIPTOR_SET;
use jobworker_proto::v1::job_worker_server::JobWorkerServer;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::audit;
use crate::config::{Config, Options, Spawner, log};
use crate::job::census::{Census, Listener};
use crate::job::engine::{Engine, blocking};
use crate::job::folder::JobsDir;
use crate::job::spec::FORMAT_VERSION;
use crate::job::trusted_dir::TrustedDir;
use crate::log::Writing;
use crate::metrics::certificates::Certificates;
use crate::metrics::jobs::Jobs;
use crate::metrics::listen::LoopbackAddress;
use crate::metrics::{Metrics, collect, endpoint};
use crate::notify;
use crate::output::hub::Hub;
use crate::policy::live;
use crate::renewal::Renewal;
use crate::retention::Retention;
use crate::service::{Routes, Service};
use crate::spawner::client::SpawnerClient;
use crate::spawner::protocol::Attached;
use crate::tasks::Tasks;
use crate::tls;

/// How long calls may take to finish once the worker goes down.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the configuration, a file, the address or the spawner is not to be had.
pub fn run(options: Options) -> anyhow::Result<()> {
    let config = Config::load(options)?;
    log::init(config.log, Writing::Threaded).context("can't start the log's thread")?;
    // Only the first provider is installed; whoever was faster installed the same library.
    let _ = tls::provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("can't start the async runtime")?;
    // On one of the runtime's own threads: this one would have to be woken for every connection.
    let served = runtime.block_on(runtime.spawn(start(config))).context("the server has panicked");
    // What blocks on a disk must not keep the process.
    runtime.shutdown_background();
    audit::close();
    served?
}

async fn start(config: Config) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [terminate, interrupt] = signals.map(|signal| signal.context("can't listen for signals"));
    let (tasks, task_ends) = Tasks::new();
    tasks.spawn("listener for signals", cancel_on_signal(terminate?, interrupt?, shutdown.clone()));
    let metrics = Metrics::default();
    let renewal = config.renewal.as_ref().map(Renewal::load).transpose()?;
    let others = renewal.iter().map(|renewal| renewal.end().clone()).collect();
    let tls = tls::live::load(&config.tls, others, metrics.clone(), &tasks)?;
    renewal.iter().for_each(|renewal| renewal.tell_of_doubt(&config.tls));
    let policies = live::load(config.policy.as_deref(), metrics.clone(), &tasks)?;
    let ends = audit::start(&config.audit_log, &config.state_dir, &tasks)?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("can't listen on {}", config.listen))?;
    let metrics_listener = match config.metrics_listen {
        Some(address) => Some(listen_for_metrics(address).await?),
        None => None,
    };
    let listeners: Vec<Box<dyn Listener>> = vec![Box::new(ends), Box::new(metrics.clone())];
    let (engine, census) = engine(&config, listeners, shutdown.clone(), &tasks).await?;
    if let Some(listener) = metrics_listener {
        let one_by_one = config.metrics_per_job.then(|| JobsDir::new(&config.state_dir));
        let mut registry = metrics.registry(Jobs { census, one_by_one }, Certificates(tls.clone()));
        registry.register_collector(Box::new(collect::Process::started_now()));
        tasks.spawn("endpoint of the metrics", endpoint::serve(listener, registry, shutdown.clone()));
    }
    raise_open_files();
    let address = listener.local_addr().context("can't tell the address that was bound")?;
    tracing::info!("listening on {address}");
    notify::ready(&tasks);
    let incoming = tls::incoming(listener, tls, config.door.clone(), metrics.clone(), &tasks);
    let service = Service::new(engine, policies, metrics, config.service).renewing(renewal);
    tokio::select! {
        served = serve(incoming, service, &config, shutdown.clone()) => served,
        lost = task_ends.before(&shutdown) => Err(lost.into()),
    }
}

async fn listen_for_metrics(address: LoopbackAddress) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address.get()).await;
    let listener = listener.with_context(|| format!("can't listen on {address} (--metrics-listen)"))?;
    let address = listener.local_addr().context("can't tell the address that was bound")?;
    tracing::info!("metrics at http://{address}/metrics");
    Ok(listener)
}

/// Asks the spawner to be there, and makes what works on jobs: at a client's request, and by retention.
async fn engine(
    config: &Config,
    listeners: Vec<Box<dyn Listener>>,
    shutdown: CancellationToken,
    tasks: &Tasks,
) -> anyhow::Result<(Engine, Census)> {
    let (spawner, attached) = match &config.spawner {
        Spawner::Running(socket) => SpawnerClient::attach(socket).await?,
        Spawner::Own(settings) => {
            // As the spawner does, but before anybody is believed who listens there.
            let own = settings.state_dir.clone();
            let found = blocking(move || TrustedDir::make(&own, 0o700, None)).await;
            found.with_context(|| {
                format!("can't work in the state folder {}", settings.state_dir.display())
            })?;
            SpawnerClient::connect_or_start(settings.clone()).await?
        }
    };
    let Attached { version, format, base, unavailable } = attached;
    let cgroup = base.map_or_else(|| "none".to_owned(), |base| base.display().to_string());
    tracing::info!(version, cgroup, "attached to the spawner");
    if format < FORMAT_VERSION {
        tracing::warn!(
            version,
            "the spawner is an older build's: jobs that it starts keep no output limit; restart it"
        );
    }
    // A spawner that was just started has said so itself, on the same stderr.
    for (controller, reason) in unavailable.into_iter().filter(|_| !spawner.has_launched()) {
        tracing::warn!(%controller, reason, "jobs can't be limited by this controller");
    }
    let hub = Hub::new(tasks).context("can't watch the jobs' folders")?;
    let (jobs, spawner) =
        (JobsDir::new(&config.state_dir), Arc::new(spawner.stay_attached(&shutdown, tasks)));
    let census = Census::start(jobs.clone(), listeners, tasks).context("can't watch the jobs' folders")?;
    Retention::start(
        jobs.clone(),
        Arc::clone(&spawner),
        config.keep,
        shutdown.clone(),
        census.clone(),
        tasks,
    );
    let engine = Engine::new(jobs, spawner, hub, config.output_limit, shutdown, census.clone());
    Ok((engine, census))
}

/// Serves `incoming` until `shutdown`, then ends as this module says. The engine has to be told of `shutdown`, too.
///
/// # Errors
/// When the descriptors of the services are not right.
pub async fn serve(
    incoming: impl Stream<Item = Result<tls::Connection, Infallible>>,
    service: Service,
    config: &Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let max_bytes = config.max_request_bytes;
    let routes = Routes::new(max_bytes, config.max_request_bytes_per_client, service.metrics().clone());
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<JobWorkerServer<Service>>().await;
    // Each names all that there is, whichever of its versions a client asks.
    let (reflection, old_reflection) = (reflection().build_v1()?, self::reflection().build_v1alpha()?);
    let routes = routes
        .with(JobWorkerServer::new(service).max_decoding_message_size(max_bytes))
        .with(health_service.max_decoding_message_size(max_bytes))
        .with(reflection.max_decoding_message_size(max_bytes))
        .with(old_reflection.max_decoding_message_size(max_bytes));
    let server = connections::serve(incoming, routes, config.max_calls_per_connection, shutdown.clone());
    drain(Box::pin(server), health, shutdown).await;
    Ok(())
}

/// Runs the server, and once the worker goes down waits only so long.
async fn drain(server: impl Future<Output = ()>, mut health: HealthReporter, shutdown: CancellationToken) {
    let deadline = async {
        shutdown.cancelled().await;
        tracing::info!("going down; jobs live on");
        notify::stopping();
        // Ends the streams of those who watch the health.
        for name in ["", <JobWorkerServer<Service> as tonic::server::NamedService>::NAME] {
            health.set_service_status(name, ServingStatus::NotServing).await;
            health.clear_service_status(name).await;
        }
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    // That it goes down is said first, however soon nobody is left to be waited for.
    tokio::select! {
        biased;
        () = deadline => {
            tracing::warn!("some calls did not finish within {} s", DRAIN_TIMEOUT.as_secs());
        }
        () = server => {}
    }
}

/// Every connection and every follower holds a descriptor or more; the usual soft limit of 1024 is for programs that
/// use select(2), see getrlimit(2).
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "can't raise the limit on open files");
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        // Registered above, both of them; again it would be named twice.
        .include_reflection_service(false)
}

async fn cancel_on_signal(mut terminate: Signal, mut interrupt: Signal, shutdown: CancellationToken) {
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    next().await;
    shutdown.cancel();
    next().await;
    tracing::warn!("a second signal: ending at once");
    audit::close();
    crate::log::close();
    std::process::exit(1);
}
