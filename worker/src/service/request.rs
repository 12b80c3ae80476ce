//! Requests on their way in: from what the wire allows to what can be carried out. Every error names field and value.

use std::fmt::Display;
use std::num::NonZeroU64;
use std::str::FromStr;

use jobworker_limits::{HostSize, Limits, ParseError, SignalNumber};
use jobworker_proto::v1;
use jobworker_proto::v1::stream_request::From as WireFrom;

use super::status::InvalidField;
use crate::audit::shorten;
use crate::job::engine::{From as Beginning, Page};
use crate::job::spec::is_variable;
use crate::job::{ByteStr, JobId, JobRequest};
use crate::output::index::Kind;

/// The kernel's `MAX_ARG_STRLEN` without the NUL at the end, in bytes: the longest single argument of execve(2).
const MAX_STRING_BYTES: usize = (128 << 10) - 1;

/// The kernel's `PATH_MAX` without the NUL at the end, in bytes.
const MAX_PATH_BYTES: usize = 4095;

/// The longest label, in characters.
const MAX_NAME_CHARS: usize = 128;

/// The longest text of a limit, in bytes; the longest that can be right holds a path.
const MAX_LIMIT_BYTES: usize = MAX_PATH_BYTES + 256;

/// More disks than anybody limits one job on.
const MAX_IO_LIMITS: usize = 256;
/// The largest page of a list: some MiB at the very most, and one where jobs are as they usually are.
const MAX_PAGE_SIZE: usize = 1000;

/// Bytes of a value that an error repeats.
const SHOWN_BYTES: usize = 128;

/// How much a client may ask for in one request.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Arguments of a command, and variables of its environment, each.
    pub args: usize,
    /// Their bytes, each.
    pub args_bytes: usize,
}

type Result<T> = std::result::Result<T, InvalidField>;

/// The client's own id for a job, or a fresh one.
///
/// # Errors
/// When it is not a version 4 UUID.
pub fn id(text: &str) -> Result<JobId> {
    if text.is_empty() {
        return Ok(JobId::random());
    }
    text.parse().map_err(|error| invalid("id", error))
}

/// What to run, and how.
///
/// # Errors
/// When a field holds what can't be carried out, or more than `caps` allow.
pub fn job(spec: v1::JobSpec, caps: Caps) -> Result<JobRequest> {
    if spec.command.is_empty() {
        return Err(invalid("spec.command", "is empty; a path or a name to look up in PATH is needed"));
    }
    Ok(JobRequest {
        command: string("spec.command", spec.command)?,
        args: args(spec.args, caps)?,
        limits: limits(&spec.limits.unwrap_or_default())?,
        user: user(spec.user)?,
        env: env(spec.env, caps)?,
        workdir: workdir(spec.workdir)?,
        name: name(spec.name)?,
        timeout_msec: spec.timeout_msec.map(timeout).transpose()?,
        output_limit: given("spec.output_limit", &spec.output_limit)?,
    })
}

/// Which of its limits probably were not meant so.
pub(super) fn warnings(request: &JobRequest) -> Vec<String> {
    if request.limits.is_empty() { Vec::new() } else { request.limits.warnings(HostSize::of_this_host()) }
}

fn timeout(msec: u64) -> Result<NonZeroU64> {
    let reason = "0 is no time to run; at least 1 is needed, or none for no timeout";
    NonZeroU64::new(msec).ok_or_else(|| invalid("spec.timeout_msec", reason))
}

/// A signal in its text form.
///
/// # Errors
/// When there is no such signal.
pub fn signal(field: &'static str, text: &str) -> Result<SignalNumber> {
    text.parse().map_err(|error| invalid(field, format!("{:?} {error}", shorten(text, SHOWN_BYTES))))
}

/// Which part of the list of jobs.
pub(super) fn page(list: &v1::ListRequest) -> Result<Page> {
    let token = &list.page_token;
    let after = if token.is_empty() { None } else { Some(token.parse()) };
    let after = after
        .transpose()
        .map_err(|error| invalid("page_token", format!("{:?} {error}", shorten(token, SHOWN_BYTES))))?;
    let size = match list.page_size {
        Some(0) => {
            return Err(invalid("page_size", "0 is no page; at least 1 is needed, or none for all jobs"));
        }
        Some(size) => Some(usize::try_from(size).map_or(MAX_PAGE_SIZE, |size| size.min(MAX_PAGE_SIZE))),
        None => None,
    };
    Ok(Page { after, size })
}

/// An offset that no output can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset: {0} is beyond where any output can end, which is at 2^63 - 1")]
pub struct OffsetOutOfRange(u64);

/// The highest offset that a file can have, and so a job's output.
const MAX_OFFSET: u64 = i64::MAX.cast_unsigned();

/// Where a request for "the last so many microseconds" begins, `now_unix_usec` being what they count from; any other begins
/// where it says.
///
/// # Errors
/// When two places are named.
pub fn since(
    from: Option<WireFrom>,
    since_usec_ago: Option<u64>,
    now_unix_usec: u64,
) -> Result<Option<WireFrom>> {
    let Some(ago) = since_usec_ago else { return Ok(from) };
    match from {
        // The client's clock, for workers that know no "ago".
        None | Some(WireFrom::SinceUnixUsec(_)) => {
            Ok(Some(WireFrom::SinceUnixUsec(now_unix_usec.saturating_sub(ago))))
        }
        Some(WireFrom::Offset(_) | WireFrom::TailLines(_)) => {
            Err(invalid("since_usec_ago", format!("{ago}, and `from` names another place; one is needed")))
        }
    }
}

/// Where to begin to read.
///
/// # Errors
/// When no output can ever reach there.
pub fn beginning(from: Option<WireFrom>) -> std::result::Result<Beginning, OffsetOutOfRange> {
    match from {
        None => Ok(Beginning::Start),
        Some(WireFrom::Offset(offset)) if offset > MAX_OFFSET => Err(OffsetOutOfRange(offset)),
        Some(WireFrom::Offset(offset)) => Ok(Beginning::Offset(offset)),
        Some(WireFrom::TailLines(lines)) => Ok(Beginning::TailLines(lines)),
        Some(WireFrom::SinceUnixUsec(unix_usec)) => Ok(Beginning::Since { unix_usec }),
    }
}

/// Which stream to read, if only one.
///
/// # Errors
/// When the number is none of the API's.
pub fn only(number: i32) -> Result<Option<Kind>> {
    match v1::OutputStream::try_from(number) {
        Ok(v1::OutputStream::Unspecified) => Ok(None),
        Ok(v1::OutputStream::Stdout) => Ok(Some(Kind::Stdout)),
        Ok(v1::OutputStream::Stderr) => Ok(Some(Kind::Stderr)),
        Err(_) => {
            Err(invalid("only", format!("{number} is not an output stream; STDOUT is 1, STDERR 2, both 0")))
        }
    }
}

fn args(args: Vec<Vec<u8>>, caps: Caps) -> Result<Vec<ByteStr>> {
    check_caps("spec.args", "arguments", args.len(), args.iter().map(Vec::len).sum(), caps)?;
    args.into_iter().enumerate().map(|(i, arg)| string(format_args!("spec.args[{i}]"), arg)).collect()
}

fn env(variables: Vec<v1::EnvVar>, caps: Caps) -> Result<Vec<(String, ByteStr)>> {
    let bytes = variables.iter().map(|variable| variable.key.len() + variable.value.len()).sum();
    check_caps("spec.env", "variables", variables.len(), bytes, caps)?;
    let variable = |(i, v1::EnvVar { key, value }): (usize, v1::EnvVar)| {
        if !is_variable(&key) {
            let shown = shorten(&key, SHOWN_BYTES);
            let problem =
                format!("{shown:?} is not a variable's name; that is not empty and holds no '=' and no NUL");
            return Err(invalid(format_args!("spec.env[{i}].key"), problem));
        }
        if key.len() + 1 + value.len() > MAX_STRING_BYTES {
            let length = key.len() + 1 + value.len();
            return Err(too_long(format_args!("spec.env[{i}]"), length));
        }
        Ok((key, string(format_args!("spec.env[{i}].value"), value)?))
    };
    variables.into_iter().enumerate().map(variable).collect()
}

fn check_caps(field: &str, things: &str, count: usize, bytes: usize, caps: Caps) -> Result<()> {
    if count > caps.args {
        return Err(invalid(
            field,
            format!("{count} {things}; this worker takes {} (--max-args)", caps.args),
        ));
    }
    if bytes > caps.args_bytes {
        let cap = caps.args_bytes;
        return Err(invalid(
            field,
            format!("{bytes} bytes of {things}; this worker takes {cap} (--max-args-bytes)"),
        ));
    }
    Ok(())
}

/// Something that execve(2) takes.
fn string(field: impl Display, bytes: Vec<u8>) -> Result<ByteStr> {
    if bytes.len() > MAX_STRING_BYTES {
        return Err(too_long(field, bytes.len()));
    }
    let shown = shorten(&String::from_utf8_lossy(&bytes), SHOWN_BYTES).into_owned();
    ByteStr::new(bytes).map_err(|error| invalid(field, format!("{shown:?} {error}")))
}

fn too_long(field: impl Display, length: usize) -> InvalidField {
    invalid(field, format!("{length} bytes; Linux takes at most {MAX_STRING_BYTES} in one string"))
}

fn limits(wire: &v1::Limits) -> Result<Limits> {
    if wire.io.len() > MAX_IO_LIMITS {
        let problem = format!("{} limits; a job has at most {MAX_IO_LIMITS}, one a disk", wire.io.len());
        return Err(invalid("spec.limits.io", problem));
    }
    let io = |(i, text): (usize, &String)| parse_limit(format_args!("spec.limits.io[{i}]"), text);
    Ok(Limits {
        cpu: limit("cpu", &wire.cpu)?,
        cpu_weight: limit("cpu_weight", &wire.cpu_weight)?,
        memory: limit("memory", &wire.memory)?,
        memory_high: limit("memory_high", &wire.memory_high)?,
        swap: limit("swap", &wire.swap)?,
        pids: limit("pids", &wire.pids)?,
        io: wire.io.iter().enumerate().map(io).collect::<Result<_>>()?,
    })
}

fn limit<T: FromStr<Err = ParseError>>(name: &str, text: &str) -> Result<Option<T>> {
    given(format_args!("spec.limits.{name}"), text)
}

fn given<T: FromStr<Err = ParseError>>(field: impl Display, text: &str) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { parse_limit(field, text).map(Some) }
}

fn parse_limit<T: FromStr<Err = ParseError>>(field: impl Display, text: &str) -> Result<T> {
    if text.len() > MAX_LIMIT_BYTES {
        return Err(invalid(field, format!("{} bytes are too many for a limit", text.len())));
    }
    text.parse().map_err(|error| invalid(field, error))
}

fn user(user: String) -> Result<Option<String>> {
    if user.chars().any(char::is_control) {
        let shown = shorten(&user, SHOWN_BYTES);
        return Err(invalid(
            "spec.user",
            format!("{shown:?} holds a control character; no user's name does"),
        ));
    }
    Ok(Some(user).filter(|user| !user.is_empty()))
}

fn workdir(path: Vec<u8>) -> Result<ByteStr> {
    let path = if path.is_empty() { b"/".to_vec() } else { path };
    let shown = shorten(&String::from_utf8_lossy(&path), SHOWN_BYTES).into_owned();
    if !path.starts_with(b"/") {
        return Err(invalid("spec.workdir", format!("{shown:?} is not absolute; it has to begin with '/'")));
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(invalid(
            "spec.workdir",
            format!("{} bytes; a path has at most {MAX_PATH_BYTES}", path.len()),
        ));
    }
    string("spec.workdir", path)
}

fn name(name: String) -> Result<Option<String>> {
    if name.chars().any(char::is_control) || name.chars().count() > MAX_NAME_CHARS {
        let shown = shorten(&name, SHOWN_BYTES);
        let problem =
            format!("{shown:?} is not at most {MAX_NAME_CHARS} characters without control characters");
        return Err(invalid("spec.name", problem));
    }
    Ok(Some(name).filter(|name| !name.is_empty()))
}

fn invalid(field: impl Display, problem: impl Display) -> InvalidField {
    InvalidField { field: field.to_string(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests;
