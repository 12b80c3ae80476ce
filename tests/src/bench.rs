//! The benchmark: the product against floors (the least that the kernel lets such a thing cost) and against peers (what
//! people use instead), on the same machine, in the same run, turn by turn.
//!
//! ```text
//!  rows ──▶ interleave: product, floor, peer, product, floor, peer, … ──▶ line: median, p99, ratio, goal
//!                                                                          └──▶ table · JSON · chart
//! ```
//!
//! A machine that is busy, or emulated, is slow for all of them alike: a ratio says more than a time. Whatever can't be
//! measured here has a line that says why.

mod capture;
pub mod chart;
mod clock;
mod floor;
mod followers;
pub mod json;
mod kill;
mod latency;
pub mod line;
mod machine;
mod memory;
pub mod parts;
mod peers;
mod processes;
mod raw;
mod start;
mod stats;
mod stream;
mod subject;
mod weight;

use std::panic;

pub use self::line::Line;
pub use self::machine::Machine;

/// What to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Fewer samples, smaller amounts.
    pub quick: bool,
    /// A machine without hardware support for virtual machines: as quick, and less of what is too slow there.
    pub emulated: bool,
    /// Whether this process may make a delegated subtree with all controllers below the root group, as in `scripts/vm`.
    pub controllers: bool,
}

impl Settings {
    /// How often, where a whole run would do it so often.
    fn rounds(self, whole: usize) -> usize {
        (whole / self.divisor()).max(3)
    }

    /// How much, where a whole run would move so much.
    fn bytes(self, whole: u64) -> u64 {
        let slower = if self.emulated { 4 } else { 1 };
        whole / self.divisor() as u64 / slower
    }

    fn divisor(self) -> usize {
        if self.quick || self.emulated { 5 } else { 1 }
    }
}

/// Removes what the measurements have left behind; once, after the last.
pub fn clean() {
    subject::clean();
}

/// Something to be measured: its name, and how.
pub struct Row {
    /// What `--rows` calls it.
    pub name: &'static str,
    measure: fn(Settings) -> anyhow::Result<Vec<Line>>,
}

/// All of them, in the order in which they are measured: what wants a machine at rest comes first.
pub const ROWS: [Row; 14] = [
    Row { name: "start", measure: start::start },
    Row { name: "start-limits", measure: start::limits },
    Row { name: "start-gaps", measure: start::gaps },
    Row { name: "start-rate", measure: start::rate },
    Row { name: "start-moves", measure: start::moves },
    Row { name: "jobctl", measure: processes::jobctl },
    Row { name: "latency", measure: latency::latency },
    Row { name: "capture", measure: capture::capture },
    Row { name: "stream", measure: stream::one },
    Row { name: "stream-8", measure: stream::eight },
    Row { name: "followers", measure: followers::followers },
    Row { name: "jobs", measure: memory::jobs },
    Row { name: "kill", measure: kill::herd },
    Row { name: "bomb", measure: kill::bomb },
];

impl Row {
    /// Measures it. Why it could not be done is a line of its own: the others go on.
    pub fn measure(&self, settings: Settings) -> Vec<Line> {
        // What the end-to-end tests share panics when something is not as it must be; the panic's words are shown.
        let measured = panic::catch_unwind(|| (self.measure)(settings))
            .unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked; stderr says why")));
        measured.unwrap_or_else(|error| vec![Line::failed(self.name, &format!("{error:#}"))])
    }
}
