//! A job for people: aligned `key: value` lines with everything that the worker told.

use std::fmt::Write;

use jobworker_proto::v1::{Cause, Job, Owner};

use super::{figures, words};
use crate::outcome::Outcome;

/// One line: which job, and how it ended.
pub(crate) fn ended(job: &Job) -> anyhow::Result<String> {
    Ok(format!("job {}: {}", words::printable(&job.id), words::ending(job, &Outcome::of_finished(job)?)))
}

/// One line about a job whose end nobody waited for.
pub(crate) fn ended_before(job: &Job) -> anyhow::Result<String> {
    let id = words::printable(&job.id);
    Ok(format!("job {id} had already ended: {}", words::ending(job, &Outcome::of_finished(job)?)))
}

/// Everything that is known of `job`; what is not known has no line.
pub(crate) fn status(job: &Job) -> anyhow::Result<String> {
    let mut lines = Lines::default();
    describe(&mut lines, job);
    processes(&mut lines, job);
    times(&mut lines, job);
    figures::limits(&mut lines, &job.limits_in_force.clone().unwrap_or_default());
    figures::usage(&mut lines, &job.usage.clone().unwrap_or_default());
    lines.add("output", words::bytes_exactly(job.output_bytes));
    lines.add_if(job.output_kept_from > 0, "output kept", || kept(job));
    lines.add_if(job.output_lost_bytes > 0, "output lost", || words::bytes_exactly(job.output_lost_bytes));
    lines.add_if(!job.cgroup.is_empty(), "cgroup", || words::printable(&job.cgroup).into_owned());
    Ok(lines.into_text())
}

/// What is left of output that has grown past its limit.
fn kept(job: &Job) -> String {
    let kept_bytes = job.output_bytes.saturating_sub(job.output_kept_from);
    let limit = job.output_limit_bytes.map(words::bytes_exactly).unwrap_or_default();
    format!("the last {} from offset {} on (limit {limit})", words::bytes(kept_bytes), job.output_kept_from)
}

/// Keys and their values, in order. Whatever a value holds is shown as one line.
#[derive(Default)]
pub(super) struct Lines(Vec<(&'static str, String)>);

impl Lines {
    pub(super) fn add(&mut self, key: &'static str, value: String) {
        self.0.push((key, value));
    }

    pub(super) fn add_if(&mut self, known: bool, key: &'static str, value: impl FnOnce() -> String) {
        if known {
            self.add(key, value());
        }
    }

    pub(super) fn add_some<T>(
        &mut self,
        key: &'static str,
        value: Option<T>,
        show: impl FnOnce(T) -> String,
    ) {
        if let Some(value) = value {
            self.add(key, show(value));
        }
    }

    fn into_text(self) -> String {
        let width = self.0.iter().map(|(key, _)| key.len() + 1).max().unwrap_or(0);
        let mut text = String::new();
        for (key, value) in self.0 {
            // A String takes everything.
            let _ = writeln!(text, "{:width$} {}", format!("{key}:"), words::printable(&value));
        }
        text
    }
}

fn describe(lines: &mut Lines, job: &Job) {
    let spec = job.spec.clone().unwrap_or_default();
    lines.add("id", job.id.clone());
    lines.add_if(!spec.name.is_empty(), "name", || words::printable(&spec.name).into_owned());
    let command = std::iter::once(&spec.command).chain(&spec.args).map(Vec::as_slice);
    lines.add("command", words::command_line(command));
    lines.add("state", words::state(job));
    lines.add_if(job.main_outside_group, "warning", || {
        "main process is outside its group: limits do not hold".to_owned()
    });
    lines.add_if(!job.user.is_empty(), "user", || user(&job.user));
    if let Some(owner) = &job.owner {
        lines.add("owner", words::printable(&owner.name).into_owned());
        lines.add("certificate", certificate(owner));
    }
    lines.add_if(!spec.workdir.is_empty(), "workdir", || {
        words::command_line(std::iter::once(&spec.workdir[..]))
    });
    for variable in &spec.env {
        let pair = [variable.key.as_bytes(), b"=", &variable.value].concat();
        lines.add("env", words::command_line(std::iter::once(&pair[..])));
    }
    lines.add_some("timeout", spec.timeout_msec, |msec| words::duration(msec.saturating_mul(1000)));
}

/// Root can write to any `cgroup.procs`, so its limits hold as long as it lets them.
fn user(name: &str) -> String {
    let name = words::printable(name);
    if name == "root" {
        format!("{name} (a root job can leave its group and its limits)")
    } else {
        name.into_owned()
    }
}

fn certificate(owner: &Owner) -> String {
    let Owner { common_name, role, serial, fingerprint_sha256, .. } = owner;
    let name = words::printable(common_name);
    format!("{name}, role {}, serial {serial}, sha256 {fingerprint_sha256}", words::printable(role))
}

fn processes(lines: &mut Lines, job: &Job) {
    lines.add_some("pid", job.pid, |pid| match &job.process {
        Some(process) => format!(
            "{pid} (state {}, {}, {} resident)",
            process.state,
            figures::counted(process.threads, "thread"),
            words::bytes(process.resident_bytes)
        ),
        None => pid.to_string(),
    });
    lines.add_some("processes", job.processes, |count| count.to_string());
    lines.add_some("left group", job.escaped_processes.filter(|count| *count > 0), |count| {
        format!("{}, for which limits did not hold", figures::counted_as(count, "process", "processes"))
    });
    for remaining in &job.remaining {
        lines.add("ends after", words::remaining(remaining));
    }
}

fn times(lines: &mut Lines, job: &Job) {
    lines.add("created", words::local_time(job.created_unix_usec));
    lines.add_some("started", job.started_unix_usec, words::local_time);
    lines.add_some("finished", job.finished_unix_usec, words::local_time);
    let key = if job.finished_unix_usec.is_some() { "ran for" } else { "running for" };
    lines.add_some(key, ran_usec(job), words::duration);
}

/// As the worker says: this clock may be another. An older worker leaves it to the two times of day; then that of a job which
/// runs is not known.
fn ran_usec(job: &Job) -> Option<u64> {
    let is_lost = job.outcome.as_ref().is_some_and(|outcome| outcome.cause() == Cause::Lost);
    let by_day = || Some(job.finished_unix_usec?.saturating_sub(job.started_unix_usec?));
    job.ran_usec.or_else(|| by_day().filter(|_| !is_lost))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jobworker_proto::v1::{self, IoLimitInForce, JobSpec, JobState, LimitsInForce, Usage, outcome};

    /// A job that ran out of memory, with all its evidence.
    fn job() -> Job {
        let spec = JobSpec {
            command: b"make".to_vec(),
            args: vec![b"-j4".to_vec(), b"all of it".to_vec()],
            ..Default::default()
        };
        let ended = Some(outcome::Ended::Signal(9));
        let cause = Cause::OutOfMemory.into();
        let io = IoLimitInForce {
            device: "254:0".into(),
            device_name: "/dev/vda".into(),
            wbps: Some(20_000_000),
            ..Default::default()
        };
        Job {
            id: "1234".into(),
            spec: Some(spec),
            state: JobState::Finished.into(),
            outcome: Some(v1::Outcome { cause, ended, own_memory_limit: true, ..Default::default() }),
            started_unix_usec: Some(1_000_000),
            finished_unix_usec: Some(64_000_000),
            limits_in_force: Some(LimitsInForce {
                cpu_quota_usec: Some(150_000),
                cpu_period_usec: Some(100_000),
                memory_max_bytes: Some(64 << 20),
                io: vec![io],
                ..Default::default()
            }),
            usage: Some(Usage {
                memory_peak_bytes: Some(64 << 20),
                cpu_usec: Some(1_500_000),
                cpu_user_usec: Some(1_000_000),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn status_is_aligned_and_has_no_line_for_what_is_unknown() {
        let text = status(&job()).expect("valid");
        for line in [
            "command:      make -j4 'all of it'",
            "state:        out of memory (limit 64 MiB, peak 64 MiB)",
            "ran for:      1m 3s",
            "cpu limit:    1.5 CPUs (150ms of each 100ms)",
            "memory limit: 64 MiB",
            "io limit:     /dev/vda (254:0): write 20 MB/s",
            "cpu time:     1.5s (user 1s)",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line:?} is not in\n{text}");
        }
        for absent in ["pid", "swap limit", "name", "owner"] {
            assert!(!text.lines().any(|line| line.starts_with(&format!("{absent}:"))), "{absent} in\n{text}");
        }
    }

    /// No clock of this machine is asked: one that is 10 minutes ahead changes nothing.
    #[test]
    fn how_long_a_job_ran_is_what_the_worker_says() {
        let shows = |job: &Job, line: &str| {
            let text = status(job).expect("valid");
            text.lines().any(|shown| {
                shown.split_once(':').map(|(k, v)| format!("{k}: {}", v.trim())).as_deref() == Some(line)
            })
        };
        // The host's clock was set an hour forward in between.
        let ended = Job { finished_unix_usec: Some(3_601_000_000), ran_usec: Some(4_000_000), ..job() };
        assert!(shows(&ended, "ran for: 4s"));
        let (outcome, finished_unix_usec, state) = (None, None, JobState::Running.into());
        let running = Job { outcome, finished_unix_usec, state, ran_usec: Some(5_000_000), ..job() };
        assert!(shows(&running, "running for: 5s"));
        // Older workers say nothing.
        assert!(shows(&Job { ran_usec: None, ..job() }, "ran for: 1m 3s"));
        assert!(!status(&Job { ran_usec: None, ..running }).expect("valid").contains("running for"));
        let lost = Some(v1::Outcome { cause: Cause::Lost.into(), ..Default::default() });
        assert!(!status(&Job { ran_usec: None, outcome: lost, ..job() }).expect("valid").contains("ran for"));
    }

    #[test]
    fn a_main_process_outside_its_group_is_said_and_what_left_it_is_counted() {
        let text = status(&Job { main_outside_group: true, ..job() }).expect("valid");
        assert!(text.contains("main process is outside its group: limits do not hold\n"), "{text}");
        let text = status(&Job { escaped_processes: Some(2), ..job() }).expect("valid");
        assert!(text.contains("2 processes, for which limits did not hold\n"), "{text}");
        let text = status(&Job { escaped_processes: Some(0), ..job() }).expect("valid");
        assert!(!text.contains("group"), "{text}");
    }

    #[test]
    fn a_root_jobs_status_says_that_its_limits_need_not_hold() {
        let shown = |user: &str| status(&Job { user: user.into(), ..job() }).expect("valid");
        let line = |text: &str| text.lines().find(|line| line.starts_with("user:")).map(str::to_owned);
        let root = line(&shown("root")).expect("a line");
        assert!(root.contains("root (a root job can leave its group and its limits)"), "{root}");
        assert!(line(&shown("alice")).is_some_and(|line| line.trim_end().ends_with(" alice")));
    }

    #[test]
    fn no_text_of_others_acts_or_hides() {
        let odd = "a\u{202e}b\u{200d}\u{1b}[2J";
        let mut job = job();
        let spec = job.spec.as_mut().expect("set above");
        (spec.name, spec.args, spec.workdir) = (odd.to_owned(), vec![odd.into()], odd.into());
        spec.env = vec![v1::EnvVar { key: odd.to_owned(), value: odd.into() }];
        job.owner = Some(Owner {
            name: odd.to_owned(),
            common_name: odd.to_owned(),
            role: odd.to_owned(),
            serial: odd.to_owned(),
            fingerprint_sha256: odd.to_owned(),
        });
        (job.id, job.user, job.cgroup) = (odd.to_owned(), odd.to_owned(), odd.to_owned());
        job.pid = Some(1);
        job.process = Some(v1::Process { state: odd.to_owned(), ..Default::default() });
        let io = &mut job.limits_in_force.as_mut().expect("set above").io[0];
        (io.device, io.device_name) = (odd.to_owned(), odd.to_owned());
        for text in [status(&job), ended(&job), ended_before(&job)] {
            let text = text.expect("valid");
            let acts = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{200d}".contains(c));
            assert!(!text.contains(acts), "{text:?}");
            assert!(text.contains(r"a\u{202e}b\u{200d}\u{1b}[2J"), "{text}");
        }
    }

    #[test]
    fn the_end_in_one_line() {
        let mut job = job();
        assert_eq!(ended(&job).expect("valid"), "job 1234: out of memory (limit 64 MiB, peak 64 MiB)");
        let outcome = job.outcome.as_mut().expect("set above");
        outcome.own_memory_limit = false;
        let further_up = "job 1234: out of memory (not by its own limit but by one further up, peak 64 MiB)";
        assert_eq!(ended(&job).expect("valid"), further_up);
        job.outcome = Some(v1::Outcome {
            cause: Cause::Stopped.into(),
            ended: Some(outcome::Ended::Signal(15)),
            stopped_by: "alice".into(),
            ..Default::default()
        });
        assert_eq!(ended(&job).expect("valid"), "job 1234: stopped by alice: killed by signal 15 (SIGTERM)");
        job.outcome = None;
        assert!(ended(&job).is_err());
    }
}
