//! Samples, and what they come to.

/// Samples of one quantity, at least one of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Half of the samples are not above it.
    pub median: f64,
    /// 99 % of the samples are not above it.
    pub p99: f64,
    /// How many there are.
    pub samples: usize,
}

impl Summary {
    /// None of no samples.
    pub(super) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self { median: percentile(&sorted, 50)?, p99: percentile(&sorted, 99)?, samples: sorted.len() })
    }
}

/// The nearest rank: a sample that was taken, never one in between.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// A party to a measurement: what it is, once, and its sample.
pub(super) type Party<'a> = &'a mut dyn FnMut() -> anyhow::Result<f64>;

/// Lets the parties take turns (A B C A B C …), so that whatever slows the machine down for a while hits all of them. The
/// first turn of each is for the caches, and not counted.
pub(super) fn interleave<const N: usize>(
    rounds: usize,
    mut parties: [Party<'_>; N],
) -> anyhow::Result<[Summary; N]> {
    let mut samples = [const { Vec::new() }; N];
    for round in 0..=rounds.max(1) {
        for (party, samples) in parties.iter_mut().zip(&mut samples) {
            let sample = party()?;
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    Ok(samples.map(|samples| Summary::of(&samples).expect("at least one round")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: &[f64]) -> (f64, f64) {
        let summary = Summary::of(samples).expect("samples");
        (summary.median, summary.p99)
    }

    #[test]
    fn the_median_and_the_99th_percentile_are_samples() {
        assert_eq!(of(&[7.0]), (7.0, 7.0));
        assert_eq!(of(&[2.0, 1.0]), (1.0, 2.0));
        assert_eq!(of(&[3.0, 1.0, 2.0]), (2.0, 3.0));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(of(&hundred), (50.0, 99.0));
        let thousand: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(of(&thousand), (500.0, 990.0));
    }

    #[test]
    fn one_slow_sample_of_many_moves_neither() {
        let mut samples = vec![1.0; 200];
        samples.push(1000.0);
        assert_eq!(of(&samples), (1.0, 1.0));
    }

    #[test]
    fn no_samples_have_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn parties_take_turns_and_the_first_turn_is_not_counted() {
        let turns = std::cell::RefCell::new(String::new());
        let take = |name: char, sample: f64| {
            turns.borrow_mut().push(name);
            Ok(if turns.borrow().len() <= 2 { 1000.0 } else { sample })
        };
        let [a, b] = interleave(3, [&mut || take('a', 1.0), &mut || take('b', 2.0)]).expect("samples");
        assert_eq!(turns.borrow().as_str(), "abababab");
        assert_eq!((a.median, a.p99, a.samples), (1.0, 1.0, 3));
        assert_eq!((b.median, b.p99, b.samples), (2.0, 2.0, 3));
    }

    #[test]
    fn a_party_that_fails_ends_the_measurement() {
        let failed = interleave(3, [&mut || Ok(1.0), &mut || anyhow::bail!("broken")]);
        assert_eq!(failed.expect_err("it failed").to_string(), "broken");
    }
}
