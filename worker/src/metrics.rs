//! Metrics: what an operator watches, counted where it happens and told over HTTP as Prometheus's text or as OpenMetrics
//! (`--metrics-listen`).
//!
//! ```text
//!  door: connections, refusals ───┐
//!  service: calls, starts, denied ├─▶ [`Metrics`] (atomics) ──▶ ┐
//!  streams: open, bytes, gaps ────┘                             ├─▶ registry ─▶ GET /metrics  [`endpoint`]
//!  jobs' folders and groups, certificates, this process ──────▶ ┘
//!                       (read when asked: [`collect`])
//! ```
//!
//! Counters count from the start of this process; what is read when asked is true at once after a restart. Nobody's
//! name is a label, nor is anything that a client may choose, so the number of series is bounded: but for those of
//! running jobs, which are told only with `--metrics-per-job`, with ids and names that clients chose, to whoever is on this
//! host.

pub mod certificates;
pub mod collect;
pub mod endpoint;
mod format;
pub mod jobs;
mod labels;
pub mod listen;

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::certificates::Certificates;
use self::jobs::Jobs;
use self::labels::{Call, Denied, Ended, Followers, Refused, Start, What};
pub use self::labels::{Following, Reloaded};
use crate::job::census::{JobEnd, Listener, OutcomeKind};
use crate::job::state::Finished;
use crate::policy::action::Verb;

/// What all names begin with.
const PREFIX: &str = "jobworker";

/// From a tenth of what a start takes on an idle machine to what no client waits for, in seconds.
const START_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 5.0, 30.0];

/// What is none of our actions: health, reflection, what clients make up.
const OTHER: &str = "other";

const STARTED: &str = "started";
const FAILED: &str = "failed";

/// What is counted. Clones are the same counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<Call, Counter>,
    denied: Family<Denied, Counter>,
    starts: Family<Start, Counter>,
    start_seconds: Histogram,
    connections: Gauge,
    refused: Family<Refused, Counter>,
    followers: Family<Followers, Gauge>,
    streams: Counter,
    streamed_bytes: Counter,
    gap_bytes: Counter,
    reload_failed: Family<What, Gauge>,
    ended: Family<Ended, Counter>,
    ended_output_bytes: Counter,
    ended_output_lost_bytes: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            denied: Family::default(),
            starts: Family::default(),
            start_seconds: Histogram::new(START_SECONDS),
            connections: Gauge::default(),
            refused: Family::default(),
            followers: Family::default(),
            streams: Counter::default(),
            streamed_bytes: Counter::default(),
            gap_bytes: Counter::default(),
            reload_failed: Family::default(),
            ended: Family::default(),
            ended_output_bytes: Counter::default(),
            ended_output_lost_bytes: Counter::default(),
        }
    }
}

/// One more of something, as long as this is held.
#[derive(Debug)]
pub struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// All of it, the jobs and the certificates, to be told.
    #[must_use]
    pub fn registry(&self, jobs: Jobs, certificates: Certificates) -> Registry {
        let mut all = Registry::default();
        let ours = all.sub_registry_with_prefix(PREFIX);
        let build = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
        ours.register("build", "What runs here", Info::new(build.to_vec()));
        ours.register("calls", "Calls, by action and by how they were answered", self.calls.clone());
        ours.register("denied_calls", "Calls that were denied, and why", self.denied.clone());
        ours.register("starts", "Starts of jobs that the policy allowed", self.starts.clone());
        let help = "From a start's permit until the command is executed, or is known not to be";
        ours.register_with_unit("start_duration", help, Unit::Seconds, self.start_seconds.clone());
        ours.register("connections", "Verified connections", self.connections.clone());
        let help =
            "Connections that were refused: failed handshakes, caps; or closed, as their certificate ended";
        ours.register("refused_connections", help, self.refused.clone());
        ours.register("followers", "Calls that last: streams and waits", self.followers.clone());
        ours.register("streams", "Streams that were begun", self.streams.clone());
        let help = "Output that was handed to streams, in bytes";
        ours.register_with_unit("streamed", help, Unit::Bytes, self.streamed_bytes.clone());
        let help = "Output that streams were told is not there any more, or never was stored, in bytes";
        ours.register_with_unit("stream_gap", help, Unit::Bytes, self.gap_bytes.clone());
        ours.register("ended_jobs", "Jobs that ended, while this process ran", self.ended.clone());
        let help = "Output of jobs that ended while this process ran, in bytes";
        ours.register_with_unit("ended_output", help, Unit::Bytes, self.ended_output_bytes.clone());
        let help = "Output of jobs that ended while this process ran that could not be stored, in bytes";
        ours.register_with_unit("ended_output_lost", help, Unit::Bytes, self.ended_output_lost_bytes.clone());
        let help = "1 where the files can't be used as they are now, and those read before are in force";
        ours.register("reload_failed", help, self.reload_failed.clone());
        ours.register_collector(Box::new(collect::Audit));
        ours.register_collector(Box::new(collect::Log));
        ours.register_collector(Box::new(jobs));
        ours.register_collector(Box::new(certificates));
        self.begin_at_zero();
        all
    }

    /// What has not happened yet is told as 0: a rate would not see the first.
    fn begin_at_zero(&self) {
        for kind in OutcomeKind::ALL {
            drop(self.ended.get_or_create(&Ended { outcome: kind.as_str() }));
        }
        for what in [Reloaded::Certificates, Reloaded::Policy] {
            drop(self.reload_failed.get_or_create(&What { what }));
        }
        for result in [STARTED, FAILED] {
            drop(self.starts.get_or_create(&Start { result }));
        }
        for following in [Following::Stream, Following::Wait] {
            drop(self.followers.get_or_create(&Followers { following }));
        }
    }

    /// Files were read again, or could not be.
    pub(crate) fn reloaded(&self, what: Reloaded, is_good: bool) {
        self.reload_failed.get_or_create(&What { what }).set(i64::from(!is_good));
    }

    /// A call was answered; none: it was for none of our actions. What a stream ends with is not known by then.
    pub(crate) fn call(&self, action: Option<Verb>, code: tonic::Code) {
        let call = Call { action: action.map_or(OTHER, Verb::as_str), code: labels::code(code) };
        self.calls.get_or_create(&call).inc();
    }

    /// The policy, or the certificate's end, said no. None: as [`Self::call`].
    pub(crate) fn denied(&self, action: Option<Verb>, reason: &'static str) {
        let action = action.map_or(OTHER, Verb::as_str);
        self.denied.get_or_create(&Denied { action, reason }).inc();
    }

    /// A start that was allowed came to this.
    pub(crate) fn start(&self, is_started: bool, took: Duration) {
        let result = if is_started { STARTED } else { FAILED };
        self.starts.get_or_create(&Start { result }).inc();
        self.start_seconds.observe(took.as_secs_f64());
    }

    /// A connection that lives as long as what is returned.
    pub(crate) fn connection(&self) -> Open {
        self.connections.inc();
        Open(self.connections.clone())
    }

    /// A connection that did not become one.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }

    /// A call that lasts as long as what is returned.
    pub(crate) fn follower(&self, following: Following) -> Open {
        if following == Following::Stream {
            self.streams.inc();
        }
        let open = self.followers.get_or_create(&Followers { following }).clone();
        open.inc();
        Open(open)
    }

    /// So much output went to a stream.
    pub(crate) fn streamed(&self, bytes: usize) {
        self.streamed_bytes.inc_by(bytes as u64);
    }

    /// So much output a stream was told is missing.
    pub(crate) fn gap(&self, bytes: u64) {
        self.gap_bytes.inc_by(bytes);
    }
}

impl Listener for Metrics {
    /// What ended before this process ran was another's to count.
    fn ended(&mut self, end: &JobEnd<'_>) {
        if end.is_from_before {
            return;
        }
        let Finished { outcome, output_bytes, output_lost_bytes, .. } = end.finished;
        self.ended.get_or_create(&Ended { outcome: outcome.kind().as_str() }).inc();
        self.ended_output_bytes.inc_by(output_bytes.unwrap_or(0));
        self.ended_output_lost_bytes.inc_by(*output_lost_bytes);
    }
}
