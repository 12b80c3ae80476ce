//! Signals, the real-time ones included: nix's and rustix's own types hold only those that have a name of their own.

use std::fmt;
use std::str::FromStr;

use rustix::process::Signal;
use rustix_libc_wrappers::process::SignalExt;

/// Real-time signals as signal(7) and kill(1) count them. The kernel has two more before them, which the C library
/// keeps for itself.
const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

/// Signals from 1 on, the same on every architecture that jobworker is built for (signal(7)).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names of the same signals, with their numbers.
const ALIASES: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];

/// A signal that can be sent to a process: 1 to 31, or a real-time one, 34 to 64.
///
/// Its text form is a name, with or without `SIG`, in any case, or a number: `TERM`, `SIGTERM`, `15`, `RTMIN+3`,
/// `SIGRTMAX-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalNumber(Signal);

/// What is no signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a signal; a name or a number is needed, like TERM, SIGTERM or 15, or of the real-time signals RTMIN to \
     RTMIN+30, which are 34 to 64"
)]
pub struct NotASignal;

impl SignalNumber {
    /// Asks a process to end.
    pub const SIGTERM: Self = Self(Signal::TERM);
    /// Ends a process, and can't be caught.
    pub const SIGKILL: Self = Self(Signal::KILL);
    /// A terminal hung up; asks a daemon to read its configuration again.
    pub const SIGHUP: Self = Self(Signal::HUP);
    /// Lets a stopped process go on.
    pub const SIGCONT: Self = Self(Signal::CONT);

    /// The number, as the kernel has it.
    pub fn as_raw(self) -> i32 {
        self.0.as_raw()
    }

    /// As rustix sends it.
    pub fn to_rustix(self) -> Signal {
        self.0
    }

    /// True for one that an enumeration of named signals does not hold.
    pub fn is_real_time(self) -> bool {
        self.as_raw() >= RT_MIN
    }
}

impl TryFrom<i32> for SignalNumber {
    type Error = NotASignal;

    fn try_from(number: i32) -> Result<Self, NotASignal> {
        Signal::from_raw(number).map(Self).ok_or(NotASignal)
    }
}

impl FromStr for SignalNumber {
    type Err = NotASignal;

    fn from_str(text: &str) -> Result<Self, NotASignal> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = match digits(text) {
            Some(number) => Some(number),
            None => named(name).or_else(|| real_time(name)),
        };
        number.ok_or(NotASignal)?.try_into()
    }
}

fn named(name: &str) -> Option<i32> {
    let alias = ALIASES.into_iter().find(|(alias, _)| *alias == name).map(|(_, number)| number);
    alias.or_else(|| (1..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| number))
}

/// `RTMIN`, `RTMIN+3`, `RTMAX`, `RTMAX-1`; nothing beyond either end.
fn real_time(name: &str) -> Option<i32> {
    let distance = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => digits(rest.strip_prefix(sign)?),
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => RT_MIN.checked_add(distance(rest, '+')?),
        (_, Some(rest)) => RT_MAX.checked_sub(distance(rest, '-')?),
        (None, None) => None,
    };
    number.filter(|number| (RT_MIN..=RT_MAX).contains(number))
}

/// Without a sign, which `parse` would take.
fn digits(text: &str) -> Option<i32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Its name: `SIGTERM`, `SIGRTMIN+3`.
impl fmt::Display for SignalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.as_raw();
        let name = usize::try_from(number - 1).ok().and_then(|at| NAMES.get(at));
        match (name, number - RT_MIN, RT_MAX - number) {
            (Some(name), ..) => write!(f, "SIG{name}"),
            (None, 0, _) => f.write_str("SIGRTMIN"),
            (None, _, 0) => f.write_str("SIGRTMAX"),
            (None, above, below) if above <= below => write!(f, "SIGRTMIN+{above}"),
            (None, _, below) => write!(f, "SIGRTMAX-{below}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_reads_back_by_its_name_and_its_number() {
        for number in (1..=31).chain(34..=64) {
            let signal = SignalNumber::try_from(number).unwrap();
            let name = signal.to_string();
            for text in [&name, &name.to_lowercase(), &name[3..], &number.to_string()] {
                assert_eq!(text.parse(), Ok(signal), "{text}");
            }
            assert_eq!((signal.as_raw(), signal.is_real_time()), (number, number >= 34));
        }
    }

    #[test]
    fn real_time_signals_are_counted_from_both_ends() {
        for (text, number) in [
            ("RTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMIN+30", 64),
            ("rtmin+0", 34),
            ("SIGRTMAX", 64),
            ("SIGRTMAX-1", 63),
            ("rtmax-30", 34),
            ("34", 34),
        ] {
            assert_eq!(text.parse::<SignalNumber>().map(SignalNumber::as_raw), Ok(number), "{text}");
        }
        for (number, name) in [(49, "SIGRTMIN+15"), (50, "SIGRTMAX-14")] {
            assert_eq!(SignalNumber::try_from(number).unwrap().to_string(), name, "as kill -l has it");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "",
            "0",
            "32",
            "33",
            "65",
            "99",
            "-9",
            "+9",
            "SIG",
            "SIG9",
            "TERMINATE",
            "SIGSIGTERM",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX-31",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN3",
            "RTMIN++3",
            "RTMIN+-3",
            "RT",
            "RTMIN+4294967296",
            " TERM",
            "TERM ",
            "é",
        ] {
            assert_eq!(text.parse::<SignalNumber>(), Err(NotASignal), "{text:?}");
        }
        for number in [i32::MIN, -1, 0, 32, 33, 65, i32::MAX] {
            assert_eq!(SignalNumber::try_from(number), Err(NotASignal), "{number}");
        }
    }
}
