//! Figures that must be in a range.

use std::ops::RangeInclusive;

/// How often is measured at most.
const ATTEMPTS: usize = 3;

/// Asserts that a figure is in its range, and prints it (`--nocapture` shows it). Measures again if it is not: under
/// emulation a busy host can stop a virtual CPU for a while, and the guest's kernel takes that for time that was used.
/// A limit that is not in force misses each time.
pub(crate) async fn assert_within(
    what: &str,
    range: RangeInclusive<f64>,
    mut measure: impl AsyncFnMut() -> f64,
) {
    let mut missed = Vec::new();
    while missed.len() < ATTEMPTS {
        let figure = measure().await;
        println!("{what}: {figure:.3}");
        if range.contains(&figure) {
            return;
        }
        missed.push(figure);
    }
    panic!("{what}: {missed:.3?}, none of them in {range:?}");
}
