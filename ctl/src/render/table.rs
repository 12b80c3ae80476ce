//! The table of `list`.

use comfy_table::{Table, presets};
use jobworker_proto::v1::{Job, JobState};

use super::words;
use crate::outcome::{End, Outcome};

const SHORTEST_ID: usize = 8;
/// Of a command, in a table on a terminal.
const COMMAND_CHARS: usize = 60;

const HEADER: [&str; 7] = ["ID", "NAME", "STATE", "USER", "OWNER", "STARTED", "COMMAND"];
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// How the table looks where it goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Each row in the colour of the job's state.
    pub(crate) color: bool,
    /// Long commands cut.
    pub(crate) shorten: bool,
}

/// One row for each job, below a header.
pub(crate) fn jobs(jobs: &[Job], look: Look) -> String {
    let id_chars = unambiguous(jobs);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(HEADER);
    table.add_rows(jobs.iter().map(|job| row(job, id_chars, look)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    let colors = std::iter::once(None).chain(jobs.iter().map(color));
    for (line, color) in table.lines().zip(colors) {
        let line = line.trim_end();
        match color.filter(|_| look.color) {
            Some(color) => text.extend([color, line, RESET, "\n"]),
            None => text.extend([line, "\n"]),
        }
    }
    text
}

fn row(job: &Job, id_chars: usize, look: Look) -> [String; 7] {
    let spec = job.spec.clone().unwrap_or_default();
    let owner = job.owner.as_ref().map_or("", |owner| &owner.name);
    let mut command =
        words::command_line(std::iter::once(&spec.command).chain(&spec.args).map(Vec::as_slice));
    if look.shorten
        && let Some((end, _)) = command.char_indices().nth(COMMAND_CHARS)
    {
        command.truncate(end);
        command.push('…');
    }
    if job.left_out_bytes > 0 && !command.ends_with('…') {
        command.push('…');
    }
    let started = job.started_unix_usec.map(words::local_time).unwrap_or_default();
    [
        words::printable(&job.id.chars().take(id_chars).collect::<String>()).into_owned(),
        words::printable(&spec.name).into_owned(),
        words::state(job),
        words::printable(&job.user).into_owned(),
        words::printable(owner).into_owned(),
        started,
        command,
    ]
}

/// How many characters of the ids tell these jobs apart.
fn unambiguous(jobs: &[Job]) -> usize {
    let mut ids: Vec<_> = jobs.iter().map(|job| job.id.as_str()).collect();
    ids.sort_unstable();
    let common = |pair: &[&str]| pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count();
    ids.windows(2).map(|pair| common(pair) + 1).max().unwrap_or(0).max(SHORTEST_ID)
}

fn color(job: &Job) -> Option<&'static str> {
    match (job.state(), Outcome::of(job)) {
        (JobState::Running, _) => Some(GREEN),
        (JobState::Starting | JobState::Stopping, _) => Some(YELLOW),
        (_, Ok(Some(Outcome::Exited(End::Code(0)) | Outcome::Stopped { .. }))) => None,
        _ => Some(RED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jobworker_proto::v1::JobSpec;

    fn job(id: &str, name: &str, command: &str) -> Job {
        let spec = JobSpec { name: name.into(), command: command.into(), ..Default::default() };
        Job { id: id.into(), spec: Some(spec), state: JobState::Running.into(), ..Default::default() }
    }

    const PLAIN: Look = Look { color: false, shorten: false };

    #[test]
    fn ids_are_as_short_as_they_stay_unambiguous() {
        let table = jobs(
            &[job("aaaaaaaa-1", "x", "ls"), job("aaaaaaaa-2", "y", "ls"), job("b0000000-3", "z", "ls")],
            PLAIN,
        );
        let ids: Vec<_> = table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(ids, ["aaaaaaaa-1", "aaaaaaaa-2", "b0000000-3"]);
        assert!(jobs(&[job("aaaaaaaa-1", "x", "ls")], PLAIN).contains("\naaaaaaaa  x"));
    }

    #[test]
    fn columns_line_up_and_each_job_is_one_line() {
        let table = jobs(&[job("aaaaaaaa", "long name", "a\nb"), job("bbbbbbbb", "", "ls")], PLAIN);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        let state = lines[0].find("STATE").expect("a column");
        assert!(lines[1..].iter().all(|line| line[state..].starts_with("running")), "{table}");
        assert!(lines[1].ends_with(r"'a\nb'"), "{table}");
        let table = jobs(&[job("aaaaaaaa", "back\u{202e}pu", "l\u{200b}s")], PLAIN);
        assert!(table.contains(r"back\u{202e}pu") && table.contains(r"'l\u{200b}s'"), "{table}");
    }

    #[test]
    fn colour_and_shortening_only_where_asked_for() {
        let long = "x".repeat(200);
        let jobs_of = [job("aaaaaaaa", "n", &long)];
        assert!(jobs(&jobs_of, PLAIN).contains(&long));
        let shown = jobs(&jobs_of, Look { color: true, shorten: true });
        assert!(shown.contains(GREEN) && shown.contains('…') && !shown.contains(&long), "{shown}");
        assert!(!shown.starts_with('\x1b'), "the header has no state");
    }
}
