//! Which faults come, in which order, after which pauses: all of it from the seed.

use std::iter;
use std::time::Duration;

use super::random::Random;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `kill -9` of the worker, and a new one.
    WorkerKilled,
    /// `kill -9` of the worker and the spawner, then of the next worker while it starts, and a new one.
    WorkerKilledEarly,
    /// SIGTERM to the worker, and a new one when it has ended.
    WorkerRestarted,
    /// A copy of the program in another place takes over, and the place of the old one is gone.
    WorkerMoved,
    /// A copy of the program takes the running one's place on the disk; then `kill -9` of the spawner.
    BinaryReplaced,
    /// `kill -9` of the spawner.
    SpawnerKilled,
    /// `kill -9` of a job's shim.
    ShimKilled,
    /// All connections break.
    Cut,
    /// The state folder's disk is full for a moment.
    DiskFilled,
    /// The host's clock is set forward or back.
    ClockJumped,
}

impl Kind {
    /// Those that any host allows, with their shares.
    const SHARES: [(Self, usize); 8] = [
        (Self::WorkerKilled, 8),
        (Self::WorkerKilledEarly, 1),
        (Self::WorkerRestarted, 2),
        (Self::WorkerMoved, 1),
        (Self::BinaryReplaced, 1),
        (Self::SpawnerKilled, 2),
        (Self::ShimKilled, 2),
        (Self::Cut, 4),
    ];

    /// As the figures name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::WorkerKilled => "worker_killed",
            Self::WorkerKilledEarly => "worker_killed_early",
            Self::WorkerRestarted => "worker_restarted",
            Self::WorkerMoved => "worker_moved",
            Self::BinaryReplaced => "binary_replaced",
            Self::SpawnerKilled => "spawner_killed",
            Self::ShimKilled => "shim_killed",
            Self::Cut => "connections_cut",
            Self::DiskFilled => "disk_filled",
            Self::ClockJumped => "clock_jumped",
        }
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How long after the one before it.
    pub pause: Duration,
    /// What.
    pub kind: Kind,
    /// Whom of several it hits, and how long after its beginning.
    pub chance: u64,
}

/// The faults, without end.
#[derive(Clone, Debug)]
pub struct Schedule {
    random: Random,
    lots: Vec<Kind>,
    longest_pause_msec: u64,
}

impl Schedule {
    /// Of a seed, with more kinds than any host allows, and their shares.
    pub fn new(seed: u64, more: &[(Kind, usize)], longest_pause_msec: u64) -> Self {
        let shares = Kind::SHARES.iter().chain(more);
        let lots = shares.flat_map(|(kind, share)| iter::repeat_n(*kind, *share)).collect();
        Self { random: Random::new(seed, &[u64::MAX]), lots, longest_pause_msec }
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let pause = Duration::from_millis(self.random.between(50, self.longest_pause_msec));
        Some(Fault { pause, kind: self.random.pick(&self.lots), chance: self.random.next() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_repeats_its_schedule_and_has_every_kind() {
        let faults =
            |seed| Schedule::new(seed, &[(Kind::DiskFilled, 3)], 1_500).take(500).collect::<Vec<_>>();
        assert_eq!(faults(1), faults(1));
        assert_ne!(faults(1), faults(2));
        let kinds: BTreeSet<Kind> = faults(1).iter().map(|fault| fault.kind).collect();
        let all = Kind::SHARES.into_iter().map(|(kind, _)| kind).chain([Kind::DiskFilled]);
        assert_eq!(kinds, all.collect());
    }
}
