//! Random numbers that a seed repeats: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
//! OOPSLA 2014).

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// The sequence of a seed and of what it is for.
    pub(super) fn new(seed: u64, purpose: &[u64]) -> Self {
        Self { state: purpose.iter().fold(mix(seed), |state, part| mix(state ^ mix(*part))) }
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number from `low` to below `high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    /// One of several.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[pick(self.next(), from.len())]
    }
}

/// A place in something of this length, which is not empty.
pub(super) fn pick(number: u64, length: usize) -> usize {
    usize::try_from(number % length as u64).expect("less than a length")
}

/// SplitMix64's finaliser: each bit of `x` reaches all others.
pub(super) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
