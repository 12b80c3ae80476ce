//! What `start` and `run` are told about the job, and the request that it makes.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, bail};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueHint};
use jobworker_proto::v1;
use uuid::Uuid;

/// The job to start.
#[derive(Args, Debug)]
pub(crate) struct JobArgs {
    /// The OS user that the job runs as [default: the worker's choice]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// A variable for the job's environment, which is otherwise clean (repeatable)
    #[arg(long, value_name = "K=V", value_parser = OsStringValueParser::new().try_map(env_var))]
    env: Vec<v1::EnvVar>,
    /// The folder that the command starts in, absolute [default: /]
    #[arg(long, value_name = "DIR")]
    workdir: Option<OsString>,
    /// A label for people
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Stop the job when it has run this long: 30s, 5m, 1h 30m
    #[arg(long, value_name = "TIME", value_parser = timeout_msec)]
    timeout: Option<NonZeroU64>,
    /// How much of its output to keep, 500M or 1GiB, at least 1MiB: beyond it the oldest bytes are given back
    /// [default: the worker's, 1GiB unless set]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    output_limit: Option<String>,
    /// The job's id (UUID v4): repeating a start with the same id never starts a second job [default: a new one]
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
    /// The program to run, with its arguments; everything after it belongs to it
    #[arg(
        required = true,
        trailing_var_arg = true,
        num_args = 1..,
        value_names = ["COMMAND", "ARG"],
        value_hint = ValueHint::CommandWithArguments
    )]
    command: Vec<OsString>,
    // Last, because what follows would stand under its heading in the help.
    #[command(flatten)]
    limits: LimitArgs,
}

/// Limits, in words that the worker reads: it alone says what is right.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// CPUs' worth of time: 1.5, 150% or 1500m
    #[arg(long, value_name = "CPUS", allow_hyphen_values = true)]
    cpu_limit: Option<String>,
    /// Share when CPUs are short, 1 to 10000; 100 is usual
    #[arg(long, value_name = "WEIGHT", allow_hyphen_values = true)]
    cpu_weight: Option<String>,
    /// Memory, 500M or 512MiB: beyond it the job ends as out of memory
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_limit: Option<String>,
    /// Memory beyond which the job is slowed down
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_high: Option<String>,
    /// Swap; none under a memory limit unless given
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    swap_limit: Option<String>,
    /// Disk bandwidth or operations per second, [PATH|DEVICE:]10M or [PATH|DEVICE:]rbps=10M,wbps=5M,riops=100,wiops=100
    /// (repeatable)
    #[arg(long, value_name = "LIMIT", alias = "disk-limit", allow_hyphen_values = true)]
    io_limit: Vec<String>,
    /// Processes and threads
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<String>,
}

impl JobArgs {
    /// The request, under an id of this side's choice.
    pub(crate) fn into_request(self) -> v1::StartRequest {
        let mut words = self.command.into_iter().map(OsStringExt::into_vec);
        let spec = v1::JobSpec {
            command: words.next().unwrap_or_default(),
            args: words.collect(),
            limits: Some(self.limits.into_message()),
            user: self.user.unwrap_or_default(),
            env: self.env,
            workdir: self.workdir.map(OsStringExt::into_vec).unwrap_or_default(),
            name: self.name.unwrap_or_default(),
            timeout_msec: self.timeout.map(NonZeroU64::get),
            output_limit: self.output_limit.unwrap_or_default(),
        };
        let id = self.id.unwrap_or_else(Uuid::new_v4);
        v1::StartRequest { id: id.to_string(), spec: Some(spec) }
    }
}

impl LimitArgs {
    fn into_message(self) -> v1::Limits {
        v1::Limits {
            cpu: self.cpu_limit.unwrap_or_default(),
            cpu_weight: self.cpu_weight.unwrap_or_default(),
            memory: self.memory_limit.unwrap_or_default(),
            memory_high: self.memory_high.unwrap_or_default(),
            swap: self.swap_limit.unwrap_or_default(),
            io: self.io_limit,
            pids: self.pids_limit.unwrap_or_default(),
        }
    }
}

fn env_var(text: OsString) -> anyhow::Result<v1::EnvVar> {
    let bytes = text.into_vec();
    let equals = bytes.iter().position(|byte| *byte == b'=');
    let (key, value) = equals.map(|at| (&bytes[..at], &bytes[at + 1..])).context("expected K=V")?;
    if key.is_empty() {
        bail!("expected K=V, with a name before the =");
    }
    let key = String::from_utf8(key.to_vec()).context("the name before the = is not UTF-8")?;
    Ok(v1::EnvVar { key, value: value.to_vec() })
}

fn timeout_msec(text: &str) -> anyhow::Result<NonZeroU64> {
    let time = humantime::parse_duration(text)?;
    let msec = u64::try_from(time.as_millis()).context("too long")?;
    NonZeroU64::new(msec).context("a timeout is at least 1ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::os::unix::ffi::OsStrExt;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        job: JobArgs,
    }

    fn parse(args: &[&str]) -> Result<v1::StartRequest, clap::Error> {
        Line::try_parse_from(["run"].iter().chain(args)).map(|line| line.job.into_request())
    }

    fn spec(args: &[&str]) -> v1::JobSpec {
        parse(args).expect("valid").spec.expect("a spec")
    }

    #[test]
    fn everything_after_the_command_belongs_to_it() {
        for args in [&["--", "ls", "-l", "--name", "x"][..], &["ls", "-l", "--name", "x"]] {
            let spec = spec(args);
            assert_eq!((spec.command, spec.name), (b"ls".to_vec(), String::new()));
            assert_eq!(spec.args, [b"-l".to_vec(), b"--name".to_vec(), b"x".to_vec()]);
        }
    }

    #[test]
    fn a_misspelt_option_is_not_taken_for_the_command() {
        assert!(parse(&["--memry-limit", "5M", "ls"]).is_err());
        assert!(parse(&[]).is_err(), "no command");
    }

    #[test]
    fn limits_reach_the_worker_as_written() {
        let args = [
            "--cpu-limit",
            "-1",
            "--disk-limit",
            "-5",
            "--io-limit=/data:1M",
            "--swap-limit",
            "0",
            "--",
            "ls",
        ];
        let limits = spec(&args).limits.expect("limits");
        assert_eq!((limits.cpu.as_str(), limits.swap.as_str()), ("-1", "0"));
        assert_eq!(limits.io, ["-5", "/data:1M"]);
        assert_eq!(limits.memory, "", "not given");
    }

    #[test]
    fn env_is_bytes_with_a_name() {
        let spec = spec(&["--env", "A=b=c", "--env", "E=", "ls"]);
        let [a, empty] = &spec.env[..] else { panic!("{:?}", spec.env) };
        assert_eq!((a.key.as_str(), a.value.as_slice()), ("A", &b"b=c"[..]));
        assert_eq!((empty.key.as_str(), empty.value.as_slice()), ("E", &b""[..]));
        assert!(parse(&["--env", "HOME", "ls"]).expect_err("no =").to_string().contains("K=V"));
        assert!(parse(&["--env", "=x", "ls"]).is_err());
    }

    #[test]
    fn arguments_need_not_be_utf8() {
        let odd = std::ffi::OsStr::from_bytes(b"\xff\n");
        let line = Line::try_parse_from(["run".as_ref(), "ls".as_ref(), odd]).expect("valid");
        assert_eq!(line.job.into_request().spec.expect("a spec").args, [b"\xff\n".to_vec()]);
    }

    #[test]
    fn zero_is_no_timeout() {
        assert_eq!(spec(&["--timeout", "1m 30s", "ls"]).timeout_msec, Some(90_000));
        for refused in ["0s", "5", "100us", "-3s", "soon", "99999999999999999999y"] {
            assert!(parse(&["--timeout", refused, "ls"]).is_err(), "{refused}");
        }
    }

    #[test]
    fn the_id_is_the_one_given_or_a_new_one() {
        let id = "0b5c7b0e-6f3c-4d39-9d3b-6f4e1f9d2a11";
        assert_eq!(parse(&["--id", id, "ls"]).expect("valid").id, id);
        assert_ne!(parse(&["ls"]).expect("valid").id, parse(&["ls"]).expect("valid").id);
        assert!(parse(&["--id", "1234", "ls"]).expect_err("no UUID").to_string().contains("1234"));
    }
}
