//! `jobctl stream` (or `logs`): a job's output, from any point on.

use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use jiff::Timestamp;
use jobworker_proto::v1::stream_request::From;
use jobworker_proto::v1::{OutputStream, StreamRequest};

use super::JobRef;
use crate::exit;
use crate::follow;
use crate::printer::Printer;
use crate::reconnect::{Link, ReconnectArgs};

/// Arguments of `stream`.
#[derive(Args, Debug)]
pub(crate) struct StreamArgs {
    #[command(flatten)]
    job: JobRef,
    /// Only what it wrote to stdout
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Only what it wrote to stderr
    #[arg(long)]
    stderr: bool,
    #[command(flatten)]
    from: FromArgs,
    /// End at what is there now
    #[arg(long)]
    no_follow: bool,
    /// Put the time in front of each line
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    pub(crate) reconnect: ReconnectArgs,
}

#[derive(Args, Debug)]
#[group(multiple = false)]
struct FromArgs {
    /// Begin at this byte of the output, both streams counted
    #[arg(long, value_name = "N")]
    from_offset: Option<u64>,
    /// Begin with the last N lines
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Begin with what came at or after this time: 2026-01-31T12:00:00Z, or 10m (ago)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
}

/// Where `--since` begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// At a point in time, in microseconds since the Unix epoch.
    UnixUsec(u64),
    /// So long ago, by the worker's clock.
    Ago(Duration),
}

pub(crate) async fn stream(link: &Link, args: StreamArgs) -> anyhow::Result<u8> {
    let job = args.job.job.clone();
    let printer = Printer::new(args.timestamps)?;
    // The end and a reader that has gone are both fine.
    follow::follow(link, args.into_request(), printer).await.map_err(|broken| match broken.resume_at {
        Some(offset) => follow::resumable(&broken.error, &job, offset),
        None => broken.error,
    })?;
    Ok(exit::SUCCESS)
}

impl StreamArgs {
    fn into_request(self) -> StreamRequest {
        let only = match (self.stdout, self.stderr) {
            (true, _) => OutputStream::Stdout,
            (_, true) => OutputStream::Stderr,
            _ => OutputStream::Unspecified,
        };
        let FromArgs { from_offset, tail, since } = self.from;
        let (since_unix_usec, since_usec_ago) = match since {
            None => (None, None),
            Some(Since::UnixUsec(at)) => (Some(at), None),
            // An older worker knows no "ago": by this clock, for it.
            Some(Since::Ago(span)) => (Some(usec_before_now(span)), Some(usec(span))),
        };
        let since = since_unix_usec.map(From::SinceUnixUsec);
        let from = from_offset.map(From::Offset).or(tail.map(From::TailLines)).or(since);
        StreamRequest {
            job: self.job.job,
            only: only.into(),
            from,
            since_usec_ago,
            no_follow: self.no_follow,
            ..Default::default()
        }
    }
}

/// A point in time (RFC 3339), or how long ago.
fn since(text: &str) -> anyhow::Result<Since> {
    match (text.parse::<Timestamp>(), humantime::parse_duration(text)) {
        (Ok(time), _) => {
            u64::try_from(time.as_microsecond()).map(Since::UnixUsec).context("that is before 1970")
        }
        (_, Ok(span)) => Ok(Since::Ago(span)),
        _ => Err(anyhow!("expected a time such as 2026-01-31T12:00:00Z, or how long ago: 10m")),
    }
}

fn usec(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// 1970 at the earliest.
fn usec_before_now(span: Duration) -> u64 {
    let then = Timestamp::now().checked_sub(span).ok();
    then.and_then(|then| u64::try_from(then.as_microsecond()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_span() {
        assert_eq!(since("1970-01-01T00:00:01.5Z").expect("a time"), Since::UnixUsec(1_500_000));
        assert_eq!(since("1970-01-01T02:00:00+02:00").expect("a time"), Since::UnixUsec(0));
        assert_eq!(since("10m").expect("a span"), Since::Ago(Duration::from_secs(600)));
        for refused in ["", "yesterday", "10", "2026-01-31T12:00:00", "1960-01-01T00:00:00Z"] {
            assert!(since(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn an_older_worker_is_told_of_a_span_by_this_clock() {
        let ago = usec_before_now(Duration::from_secs(600));
        let now = u64::try_from(Timestamp::now().as_microsecond()).expect("after 1970");
        assert!((600_000_000..610_000_000).contains(&(now - ago)), "{ago}");
        assert_eq!((usec_before_now(Duration::MAX), usec(Duration::MAX)), (0, u64::MAX));
    }
}
