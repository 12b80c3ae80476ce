//! The options, once for the command line, the environment and the file.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jobworker_certs::{Days, RoleOid};
use jobworker_limits::OutputLimit;
use serde::{Deserialize, Deserializer, de};

use super::log;
use crate::audit;
use crate::metrics::listen::LoopbackAddress;
use crate::retention::{KeepBytes, KeepFor};
use crate::spawner::defaults::{DefaultRlimit, OomScoreAdj};

/// What was given, and nothing else: no defaults.
#[derive(clap::Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// Configuration file (TOML, keys like these flags) [default: /etc/jobworker/worker.toml, if there is one].
    #[arg(long, value_name = "FILE", env = "JOBWORKER_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one, which the log tells [default: 127.0.0.1:50051].
    #[arg(long, value_name = "ADDRESS", env = "JOBWORKER_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Folder of the jobs' folders [default: /var/lib/jobworker].
    #[arg(long, value_name = "DIR", env = "JOBWORKER_STATE_DIR")]
    pub state_dir: Option<PathBuf>,

    /// CA certificates that clients' certificates have to be signed by (PEM). This file and the next three are read again
    /// on SIGHUP and when one changes.
    #[arg(long, value_name = "FILE", env = "JOBWORKER_CA", help_heading = "TLS")]
    pub ca: Option<PathBuf>,
    /// The worker's certificate, with intermediates (PEM).
    #[arg(long, value_name = "FILE", env = "JOBWORKER_CERT", help_heading = "TLS")]
    pub cert: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, value_name = "FILE", env = "JOBWORKER_KEY", help_heading = "TLS")]
    pub key: Option<PathBuf>,
    /// Lists of revoked certificates, one of each CA (PEM); repeatable. One that has expired locks out its own CA's clients
    /// and nobody else. Where all have expired, the worker does not start.
    #[arg(long, value_name = "FILE", env = "JOBWORKER_CRL", value_delimiter = ',', help_heading = "TLS")]
    #[serde(deserialize_with = "one_or_more")]
    pub crl: Option<Vec<PathBuf>>,
    /// The certificates' extension that holds the role [default: 1.3.6.1.4.1.32473.1.1].
    #[arg(long, value_name = "OID", env = "JOBWORKER_ROLE_OID", help_heading = "TLS")]
    #[serde(deserialize_with = "text")]
    pub role_oid: Option<RoleOid>,
    /// How long a TLS handshake may take, and after it the first bytes of HTTP/2 [default: 10s].
    #[arg(long, value_name = "TIME", env = "JOBWORKER_HANDSHAKE_TIMEOUT", help_heading = "TLS")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub handshake_timeout: Option<Duration>,
    /// The CA that signs clients' next certificates over the API, with intermediates (PEM) [default: none are renewed].
    #[arg(long, value_name = "FILE", env = "JOBWORKER_RENEW_CA", help_heading = "TLS")]
    pub renew_ca: Option<PathBuf>,
    /// The private key of that CA (PEM), readable by the worker's user and at most by its group.
    #[arg(long, value_name = "FILE", env = "JOBWORKER_RENEW_KEY", help_heading = "TLS")]
    pub renew_key: Option<PathBuf>,
    /// Days that a renewed certificate is valid, cut to that CA's end [default: 45].
    #[arg(long, value_name = "N", env = "JOBWORKER_RENEW_DAYS", help_heading = "TLS")]
    #[serde(deserialize_with = "days")]
    pub renew_days: Option<Days>,

    /// Socket of a spawner that runs already, under a service manager or as another user [default: the worker starts
    /// one itself, which takes the next five].
    #[arg(long, value_name = "PATH", env = "JOBWORKER_SPAWNER_SOCKET", help_heading = "Jobs")]
    pub spawner_socket: Option<PathBuf>,
    /// Delegated cgroup v2 subtree for the jobs' groups [default: the worker's own].
    #[arg(long, value_name = "PATH", env = "JOBWORKER_CGROUP", help_heading = "Jobs")]
    pub cgroup: Option<PathBuf>,
    /// OS user of jobs that name none [default: the worker's own; a worker that is root has none].
    #[arg(long, value_name = "USER", env = "JOBWORKER_DEFAULT_USER", help_heading = "Jobs")]
    pub default_user: Option<String>,
    /// Another OS user that jobs may run as; repeatable.
    #[arg(
        long,
        value_name = "USER",
        env = "JOBWORKER_ALLOW_USER",
        value_delimiter = ',',
        help_heading = "Jobs"
    )]
    pub allow_user: Option<Vec<String>>,
    /// Limit of setrlimit(2) that jobs begin with, in its units: NOFILE=1024:524288 (soft and hard), CORE=unlimited; repeatable
    /// [default: as README's table says].
    #[arg(
        long,
        value_name = "NAME=SOFT:HARD",
        env = "JOBWORKER_DEFAULT_RLIMIT",
        value_delimiter = ',',
        help_heading = "Jobs"
    )]
    pub default_rlimit: Option<Vec<DefaultRlimit>>,
    /// How soon the kernel's out-of-memory killer takes jobs' processes, from -1000 (never) to 1000; their users can't lower
    /// it [default: 0].
    #[arg(
        long,
        value_name = "N",
        env = "JOBWORKER_DEFAULT_OOM_SCORE_ADJ",
        allow_hyphen_values = true,
        help_heading = "Jobs"
    )]
    pub default_oom_score_adj: Option<OomScoreAdj>,
    /// How long a stopped job has to end before it is killed, where the client does not say [default: 10s].
    #[arg(long, value_name = "TIME", env = "JOBWORKER_GRACE", help_heading = "Jobs")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub grace: Option<Duration>,
    /// How much output is kept of a job that does not say, at least 1MiB; beyond it the oldest is given back
    /// [default: 1GiB].
    #[arg(long, value_name = "SIZE", env = "JOBWORKER_OUTPUT_LIMIT", help_heading = "Jobs")]
    pub output_limit: Option<OutputLimit>,

    /// Remove jobs with their output this long after their end; 7days, 12h [default: keep them].
    #[arg(long, value_name = "TIME", env = "JOBWORKER_KEEP_ENDED_FOR", help_heading = "Jobs")]
    #[serde(deserialize_with = "text")]
    pub keep_ended_for: Option<KeepFor>,
    /// Remove jobs with their output, those first that ended first, while ended jobs use more of the disk than this;
    /// 50G, 50GiB [default: keep them].
    #[arg(long, value_name = "SIZE", env = "JOBWORKER_KEEP_ENDED_BYTES", help_heading = "Jobs")]
    #[serde(deserialize_with = "text")]
    pub keep_ended_bytes: Option<KeepBytes>,

    /// Connections at a time [default: 4096].
    #[arg(long, value_name = "N", env = "JOBWORKER_MAX_CONNECTIONS", help_heading = "Caps")]
    pub max_connections: Option<NonZeroUsize>,
    /// TLS handshakes at a time; one more drops the oldest [default: 256].
    #[arg(long, value_name = "N", env = "JOBWORKER_MAX_HANDSHAKES", help_heading = "Caps")]
    pub max_handshakes: Option<NonZeroUsize>,
    /// Calls at a time on one connection [default: 128].
    #[arg(long, value_name = "N", env = "JOBWORKER_MAX_CALLS_PER_CONNECTION", help_heading = "Caps")]
    pub max_calls_per_connection: Option<NonZeroU32>,
    /// Streams and waits at a time of one client, over all its connections [default: 256].
    #[arg(long, value_name = "N", env = "JOBWORKER_MAX_FOLLOWERS", help_heading = "Caps")]
    pub max_followers: Option<NonZeroUsize>,
    /// Lists of jobs at a time of one client, over all its connections; clients take turns [default: 32].
    #[arg(long, value_name = "N", env = "JOBWORKER_MAX_LISTS_PER_CLIENT", help_heading = "Caps")]
    pub max_lists_per_client: Option<NonZeroUsize>,
    /// Bytes of one request [default: 8388608].
    #[arg(long, value_name = "BYTES", env = "JOBWORKER_MAX_REQUEST_BYTES", help_heading = "Caps")]
    pub max_request_bytes: Option<NonZeroUsize>,
    /// Arguments of a job's command, and variables of its environment, each [default: 4096].
    #[arg(long, value_name = "N", env = "JOBWORKER_MAX_ARGS", help_heading = "Caps")]
    pub max_args: Option<NonZeroUsize>,
    /// Bytes of a job's arguments, and of its environment, each [default: 1048576].
    #[arg(long, value_name = "BYTES", env = "JOBWORKER_MAX_ARGS_BYTES", help_heading = "Caps")]
    pub max_args_bytes: Option<NonZeroUsize>,
    /// Connections at a time of one client [default: 1024].
    #[arg(long, value_name = "N", env = "JOBWORKER_MAX_CONNECTIONS_PER_CLIENT", help_heading = "Caps")]
    pub max_connections_per_client: Option<NonZeroUsize>,
    /// Bytes of requests of one client that have not arrived whole, over all its connections [default: four times
    /// --max-request-bytes].
    #[arg(long, value_name = "BYTES", env = "JOBWORKER_MAX_REQUEST_BYTES_PER_CLIENT", help_heading = "Caps")]
    pub max_request_bytes_per_client: Option<NonZeroUsize>,

    /// Who may do what (TOML); read again on SIGHUP and when it changes. `jobworker policy check FILE` tells what is
    /// wrong with it [default: admins everything, users list, status, stream and wait].
    #[arg(long, value_name = "FILE", env = "JOBWORKER_POLICY", help_heading = "Policy")]
    pub policy: Option<PathBuf>,

    /// Tell metrics over HTTP at this loopback address and port, under /metrics, to Prometheus [default: nowhere].
    #[arg(long, value_name = "ADDRESS", env = "JOBWORKER_METRICS_LISTEN", help_heading = "Metrics")]
    #[serde(deserialize_with = "text")]
    pub metrics_listen: Option<LoopbackAddress>,
    /// Tell CPU time, memory and pressure of each running job by its id and name, too; each is a dozen series more.
    #[arg(long, env = "JOBWORKER_METRICS_PER_JOB", help_heading = "Metrics")]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub metrics_per_job: Option<bool>,

    /// How the log is written to stderr [default: text].
    #[arg(long, value_name = "FORMAT", env = "JOBWORKER_LOG_FORMAT", help_heading = "Log")]
    pub log_format: Option<log::Format>,
    /// The least serious events that are logged; the audit log always is [default: info].
    #[arg(long, value_name = "LEVEL", env = "JOBWORKER_LOG_LEVEL", help_heading = "Log")]
    pub log_level: Option<log::Level>,
    /// Where the audit log goes, who did what and how jobs ended: a file, as JSON, opened again on SIGHUP and when it is
    /// renamed; stdout, as JSON; journald (journalctl -t jobworker-audit); or among the log, in its form [default: log].
    #[arg(long, value_name = "FILE|stdout|journald|log", env = "JOBWORKER_AUDIT_LOG", help_heading = "Log")]
    #[serde(deserialize_with = "text")]
    pub audit_log: Option<audit::Destination>,
}

impl Options {
    /// What is given here, else there.
    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            config: self.config.or(other.config),
            listen: self.listen.or(other.listen),
            state_dir: self.state_dir.or(other.state_dir),
            ca: self.ca.or(other.ca),
            cert: self.cert.or(other.cert),
            key: self.key.or(other.key),
            crl: self.crl.or(other.crl),
            role_oid: self.role_oid.or(other.role_oid),
            handshake_timeout: self.handshake_timeout.or(other.handshake_timeout),
            renew_ca: self.renew_ca.or(other.renew_ca),
            renew_key: self.renew_key.or(other.renew_key),
            renew_days: self.renew_days.or(other.renew_days),
            spawner_socket: self.spawner_socket.or(other.spawner_socket),
            cgroup: self.cgroup.or(other.cgroup),
            default_user: self.default_user.or(other.default_user),
            allow_user: self.allow_user.or(other.allow_user),
            default_rlimit: self.default_rlimit.or(other.default_rlimit),
            default_oom_score_adj: self.default_oom_score_adj.or(other.default_oom_score_adj),
            grace: self.grace.or(other.grace),
            output_limit: self.output_limit.or(other.output_limit),
            keep_ended_for: self.keep_ended_for.or(other.keep_ended_for),
            keep_ended_bytes: self.keep_ended_bytes.or(other.keep_ended_bytes),
            max_connections: self.max_connections.or(other.max_connections),
            max_handshakes: self.max_handshakes.or(other.max_handshakes),
            max_calls_per_connection: self.max_calls_per_connection.or(other.max_calls_per_connection),
            max_followers: self.max_followers.or(other.max_followers),
            max_lists_per_client: self.max_lists_per_client.or(other.max_lists_per_client),
            max_request_bytes: self.max_request_bytes.or(other.max_request_bytes),
            max_args: self.max_args.or(other.max_args),
            max_args_bytes: self.max_args_bytes.or(other.max_args_bytes),
            max_connections_per_client: self.max_connections_per_client.or(other.max_connections_per_client),
            max_request_bytes_per_client: self
                .max_request_bytes_per_client
                .or(other.max_request_bytes_per_client),
            policy: self.policy.or(other.policy),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            metrics_per_job: self.metrics_per_job.or(other.metrics_per_job),
            log_format: self.log_format.or(other.log_format),
            log_level: self.log_level.or(other.log_level),
            audit_log: self.audit_log.or(other.audit_log),
        }
    }
}

fn text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

/// A list; or a single one, as it was written when there could be no more.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<PathBuf>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a path, or a list of paths, is needed")]
    enum OneOrMore {
        One(PathBuf),
        More(Vec<PathBuf>),
    }
    Ok(Some(match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(path) => vec![path],
        OneOrMore::More(paths) => paths,
    }))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map(Some).map_err(|error| {
        de::Error::custom(format!(
            "{text:?} is not a time: {error}; a number with a unit is needed, like \"10s\""
        ))
    })
}

fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Days>, D::Error> {
    u64::deserialize(deserializer)?.to_string().parse().map(Some).map_err(de::Error::custom)
}
