//! What an operator chooses: a flag, else a variable of the environment (`JOBWORKER_…`), else the file, else the
//! default.
//!
//! The file is TOML with the flags' names as keys, like `listen = "127.0.0.1:50051"` or `allow-user = ["build"]`. A key
//! that is none of them is an error: a misspelt cap must not be ignored.

pub mod log;
mod options;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobworker_certs::Days;
use jobworker_limits::OutputLimit;

pub use self::options::Options;
use crate::audit;
use crate::metrics::listen::LoopbackAddress;
use crate::renewal;
use crate::retention::Keep;
use crate::service;
use crate::spawner::client::Settings as SpawnerSettings;
use crate::spawner::defaults::{JobDefaults, RepeatedRlimit};
use crate::tls;

/// Read where there is no `--config`, if it exists.
pub const DEFAULT_FILE: &str = "/etc/jobworker/worker.toml";

const DEFAULT_STATE_DIR: &str = "/var/lib/jobworker";
const DEFAULT_PORT: u16 = 50051;

/// Everything that `jobworker serve` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Folder of the jobs' folders.
    pub state_dir: PathBuf,
    /// The spawner to ask for jobs.
    pub spawner: Spawner,
    /// Certificates and keys.
    pub tls: tls::Files,
    /// What a connection has to keep to.
    pub door: tls::Door,
    /// What a request has to keep to.
    pub service: service::Settings,
    /// How much output is kept of a job that does not say.
    pub output_limit: OutputLimit,
    /// Calls that one connection may have open.
    pub max_calls_per_connection: u32,
    /// The longest request, in bytes.
    pub max_request_bytes: usize,
    /// Bytes of requests that one client may have underway.
    pub max_request_bytes_per_client: usize,
    /// How the log is written.
    pub log: log::Settings,
    /// What is kept of ended jobs.
    pub keep: Keep,
    /// The policy's file; none: the built-in one.
    pub policy: Option<PathBuf>,
    /// Where metrics are told; none: nowhere.
    pub metrics_listen: Option<LoopbackAddress>,
    /// Whether running jobs are told of one by one.
    pub metrics_per_job: bool,
    /// Where the audit log goes.
    pub audit_log: audit::Destination,
    /// How clients' certificates are renewed; none: they are not.
    pub renewal: Option<renewal::Settings>,
}

/// Where the spawner is.
#[derive(Clone, Debug)]
pub enum Spawner {
    /// A service manager has started one, which listens on this socket.
    Running(PathBuf),
    /// The worker starts one itself, unless the one that it had started before still runs.
    Own(SpawnerSettings),
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration file {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("the configuration file {} is not right: {reason}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where in it, what is wrong, and which keys there are.
        reason: Box<toml::de::Error>,
    },
    /// Something without default is not given.
    #[error("--{name} is missing: {what}; it may also be JOBWORKER_{variable} or `{name}` in {DEFAULT_FILE}")]
    Missing {
        /// The flag and key.
        name: &'static str,
        /// Its variable.
        variable: &'static str,
        /// What it is.
        what: &'static str,
    },
    /// Two things that exclude each other.
    #[error(
        "--{name} is for a spawner that the worker starts itself; give it to the one behind --spawner-socket instead"
    )]
    NotOurSpawner {
        /// The flag and key.
        name: &'static str,
    },
    /// Two limits for one resource.
    #[error(transparent)]
    Rlimits(#[from] RepeatedRlimit),
    /// One of two that make sense together only.
    #[error(
        "--{given} makes no sense without --{missing}: together they turn the renewal of certificates on"
    )]
    Alone {
        /// The flag and key that is given.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
}

impl Config {
    /// From the command line and the environment, both in `options`, and the file.
    ///
    /// # Errors
    /// When the file can't be read or is not right, or a certificate or key is not given.
    pub fn load(options: Options) -> Result<Self, ConfigError> {
        let file = match &options.config {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => Options::default(),
        };
        Self::resolve(options.or(file))
    }

    fn resolve(options: Options) -> Result<Self, ConfigError> {
        let (spawner, log) = (spawner(&options)?, log_settings(&options));
        let renewal = renewal(&options)?;
        let missing = |name, variable, what| ConfigError::Missing { name, variable, what };
        let tls = tls::Files {
            ca: options.ca.ok_or(missing("ca", "CA", "the CA that signs clients' certificates"))?,
            cert: options.cert.ok_or(missing("cert", "CERT", "the worker's certificate"))?,
            key: options.key.ok_or(missing("key", "KEY", "the private key of the worker's certificate"))?,
            crl: options.crl.unwrap_or_default(),
        };
        let door = tls::Door {
            role_oid: options.role_oid.unwrap_or_default(),
            handshake_timeout: options.handshake_timeout.unwrap_or(Duration::from_secs(10)),
            max_handshakes: options.max_handshakes.map_or(256, usize::from),
            max_connections: options.max_connections.map_or(4096, usize::from),
            max_connections_per_client: options.max_connections_per_client.map_or(1024, usize::from),
        };
        let caps = service::Caps {
            args: options.max_args.map_or(4096, usize::from),
            args_bytes: options.max_args_bytes.map_or(1 << 20, usize::from),
        };
        let service = service::Settings {
            caps,
            max_followers: options.max_followers.map_or(256, usize::from),
            max_lists: options.max_lists_per_client.map_or(32, usize::from),
            grace: options.grace.unwrap_or(Duration::from_secs(10)),
        };
        let max_request_bytes = options.max_request_bytes.map_or(8 << 20, usize::from);
        Ok(Self {
            listen: options.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))),
            state_dir: options.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
            spawner,
            tls,
            door,
            service,
            output_limit: options.output_limit.unwrap_or(OutputLimit::DEFAULT),
            max_calls_per_connection: options.max_calls_per_connection.map_or(128, u32::from),
            max_request_bytes,
            max_request_bytes_per_client: options
                .max_request_bytes_per_client
                .map_or(max_request_bytes.saturating_mul(4), usize::from),
            log,
            keep: Keep { ended_for: options.keep_ended_for, ended_bytes: options.keep_ended_bytes },
            policy: options.policy,
            metrics_listen: options.metrics_listen,
            metrics_per_job: options.metrics_per_job.unwrap_or(false),
            audit_log: options.audit_log.unwrap_or_default(),
            renewal,
        })
    }
}

/// A socket that is given belongs to a spawner that runs already; what one of our own would be told is no use to it.
fn spawner(options: &Options) -> Result<Spawner, ConfigError> {
    if let Some(socket) = &options.spawner_socket {
        let given = [
            ("cgroup", options.cgroup.is_some()),
            ("default-user", options.default_user.is_some()),
            ("allow-user", options.allow_user.is_some()),
            ("default-rlimit", options.default_rlimit.is_some()),
            ("default-oom-score-adj", options.default_oom_score_adj.is_some()),
        ];
        return match given.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(ConfigError::NotOurSpawner { name }),
            None => Ok(Spawner::Running(socket.clone())),
        };
    }
    let state_dir = options.state_dir.clone().unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    Ok(Spawner::Own(SpawnerSettings {
        socket: state_dir.join("spawner.sock"),
        state_dir,
        cgroup: options.cgroup.clone(),
        default_user: options.default_user.clone(),
        allow_users: options.allow_user.clone().unwrap_or_default(),
        defaults: JobDefaults::new(
            options.default_rlimit.clone().unwrap_or_default(),
            options.default_oom_score_adj,
        )?,
        log: log_settings(options),
    }))
}

fn renewal(options: &Options) -> Result<Option<renewal::Settings>, ConfigError> {
    let (ca, key) = ("renew-ca", "renew-key");
    match (&options.renew_ca, &options.renew_key) {
        (Some(ca), Some(key)) => Ok(Some(renewal::Settings {
            ca: ca.clone(),
            key: key.clone(),
            days: options.renew_days.unwrap_or(Days::CLIENT),
            role_oid: options.role_oid.clone().unwrap_or_default(),
        })),
        (None, None) if options.renew_days.is_none() => Ok(None),
        (None, None) => Err(ConfigError::Alone { given: "renew-days", missing: ca }),
        (Some(_), None) => Err(ConfigError::Alone { given: ca, missing: key }),
        (None, Some(_)) => Err(ConfigError::Alone { given: key, missing: ca }),
    }
}

fn log_settings(options: &Options) -> log::Settings {
    log::Settings {
        format: options.log_format.unwrap_or_default(),
        level: options.log_level.unwrap_or_default(),
    }
}

fn read(path: &Path) -> Result<Options, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|reason| ConfigError::Malformed { path: path.to_owned(), reason: Box::new(reason) })
}

#[cfg(test)]
mod tests;
