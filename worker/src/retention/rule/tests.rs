use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;

fn keep(time: Option<&str>, bytes: Option<&str>) -> Keep {
    Keep {
        ended_for: time.map(|time| time.parse().unwrap()),
        ended_bytes: bytes.map(|bytes| bytes.parse().unwrap()),
    }
}

fn ended(finished_unix_usec: u64, bytes: u64) -> Ended {
    Ended { job: JobId::random(), finished_unix_usec, bytes }
}

fn jobs(removals: &[Removal]) -> Vec<JobId> {
    removals.iter().map(|removal| removal.job).collect()
}

#[test]
fn what_is_too_old_goes_to_the_microsecond() {
    let (old, edge, future) = (ended(0, 1), ended(1, 1), ended(u64::MAX, 1));
    let found = removals([future, edge, old].into_iter(), 10 * SECOND, &keep(Some("9s 999999us"), None));
    assert_eq!(jobs(&found), [old.job]);
    assert_eq!(found[0].rule.to_string(), "--keep-ended-for 9s 999ms 999us");
}

#[test]
fn of_what_is_too_much_the_oldest_go() {
    let [first, second, third] = [ended(1, 100), ended(2, 1), ended(3, 50)];
    let found = |bytes| jobs(&removals([third, first, second].into_iter(), 3, &keep(None, Some(bytes))));
    assert_eq!(found("151"), []);
    assert_eq!(found("150"), [first.job]);
    assert_eq!(found("51"), [first.job]);
    assert_eq!(found("50"), [first.job, second.job]);
    assert_eq!(found("49"), [first.job, second.job, third.job], "one alone may be too much");
}

#[test]
fn what_goes_by_age_is_not_counted_among_what_is_left() {
    let [old, young] = [ended(0, 100), ended(100 * SECOND, 100)];
    let found = removals([old, young].into_iter(), 100 * SECOND, &keep(Some("1min"), Some("100")));
    assert_eq!(jobs(&found), [old.job]);
    assert!(matches!(found[0].rule, Rule::Age(_)));
}

#[test]
fn a_clock_that_was_set_back_removes_nothing_by_age() {
    let found = removals([ended(1000 * SECOND, 1)].into_iter(), 0, &keep(Some("1ns"), None));
    assert_eq!(found, []);
}

#[test]
fn settings_are_read_or_refused_with_the_value() {
    assert!(Keep::default().is_everything() && !keep(Some("1s"), None).is_everything());
    assert_eq!(
        keep(Some("7d"), Some("2MiB")).to_string(),
        "--keep-ended-for 7days, --keep-ended-bytes 2097152"
    );
    for (text, words) in [
        ("0s", "must be more than 0"),
        ("7", "like \"7days\""),
        ("", "like \"7days\""),
        ("-1s", "like \"7days\""),
        ("99999999999999999999y", "is not a time"),
    ] {
        let error = text.parse::<KeepFor>().unwrap_err().to_string();
        assert!(error.contains(words) && error.starts_with(&format!("{text:?}")), "{error}");
    }
    for (text, words) in [
        ("0", "must be more than 0"),
        ("0.1B", "must be more than 0"),
        ("much", "give a number"),
        ("", "give a number"),
        ("-1", "give a number"),
        ("9EiB", "less than 8 EiB"),
        ("99999999999999999999", "give a number with a unit"),
        ("99999999999EB", "less than 8 EiB"),
        ("18446744073709551615", "less than 8 EiB"),
    ] {
        let error = text.parse::<KeepBytes>().unwrap_err().to_string();
        assert!(error.contains(words) && error.starts_with(&format!("{text:?}")), "{error}");
    }
}

prop_compose! {
    fn any_ended()(at in prop_oneof![0u64..40, Just(u64::MAX)], bytes in prop_oneof![0u64..20, Just(u64::MAX)]) -> Ended {
        ended(at, bytes)
    }
}

fn any_keep() -> impl Strategy<Value = Keep> {
    (proptest::option::of(1u64..40), proptest::option::of(1u64..100)).prop_map(|(usec, bytes)| Keep {
        ended_for: usec.map(|usec| KeepFor(Duration::from_micros(usec))),
        ended_bytes: bytes.and_then(NonZeroU64::new).map(KeepBytes),
    })
}

fn is_too_old(ended: &Ended, now: u64, keep: &Keep) -> bool {
    keep.ended_for
        .is_some_and(|keep| u128::from(now.saturating_sub(ended.finished_unix_usec)) > keep.0.as_micros())
}

fn total<'a>(ended: impl Iterator<Item = &'a Ended>) -> u128 {
    ended.map(|ended| u128::from(ended.bytes)).sum()
}

proptest! {
    #[test]
    fn what_stays_fits_and_nothing_goes_without_need(
        all in proptest::collection::vec(any_ended(), 0..12),
        now in 0u64..60,
        keep in any_keep(),
    ) {
        let found = removals(all.iter().copied(), now, &keep);
        let gone: BTreeSet<_> = found.iter().map(|removal| removal.job).collect();
        prop_assert_eq!(gone.len(), found.len(), "each once");
        let (goes, stays): (Vec<&Ended>, Vec<&Ended>) = all.iter().partition(|ended| gone.contains(&ended.job));
        let limit = keep.ended_bytes.map_or(u128::MAX, |bytes| u128::from(bytes.0.get()));
        prop_assert!(!stays.iter().any(|ended| is_too_old(ended, now, &keep)));
        prop_assert!(total(stays.iter().copied()) <= limit);
        let oldest_left = stays.iter().map(|ended| (ended.finished_unix_usec, ended.job)).min();
        for ended in &goes {
            let rule = found.iter().find(|removal| removal.job == ended.job).unwrap().rule;
            prop_assert_eq!(matches!(rule, Rule::Age(_)), is_too_old(ended, now, &keep));
            prop_assert!(oldest_left.is_none_or(|left| (ended.finished_unix_usec, ended.job) < left));
            // Of those that are not too old: with this one and all that ended after it, it was too much.
            let from_here = all.iter().filter(|other| {
                (other.finished_unix_usec, other.job) >= (ended.finished_unix_usec, ended.job)
            });
            prop_assert!(is_too_old(ended, now, &keep) || total(from_here) > limit);
        }
    }

    #[test]
    fn the_order_in_which_they_are_found_does_not_matter(
        all in proptest::collection::vec(any_ended(), 0..12).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        now in 0u64..60,
        keep in any_keep(),
    ) {
        let (one, other) = all;
        prop_assert_eq!(removals(one.into_iter(), now, &keep), removals(other.into_iter(), now, &keep));
    }

    #[test]
    fn by_age_less_goes_the_further_the_clock_is_set_back(
        all in proptest::collection::vec(any_ended(), 0..12),
        (now, back) in (0u64..60, 0u64..60),
        usec in 1u64..40,
    ) {
        let keep = Keep { ended_for: Some(KeepFor(Duration::from_micros(usec))), ended_bytes: None };
        let gone = |now| jobs(&removals(all.iter().copied(), now, &keep));
        let (before, after) = (gone(now), gone(now.saturating_sub(back)));
        prop_assert!(before.starts_with(&after));
    }
}
