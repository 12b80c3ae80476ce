//! The most that may be asked for of one thing, and what is taken where nothing is asked for.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// `"512MiB"`, or `{ max = "512MiB", default = "128MiB" }`. Numbers may stand without quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ceiling<T> {
    pub(super) max: T,
    /// What holds where nothing is asked for; not above `max`.
    pub(super) default: T,
}

/// How long a job may run, in milliseconds; written like `1h` or `90s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timeout(pub(super) NonZeroU64);

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = humantime::parse_duration(text)
            .map_err(|error| format!("{text:?} is not a time: {error}; like \"1h\" or \"90s\""))?;
        let msec = u64::try_from(time.as_millis()).ok().and_then(NonZeroU64::new);
        msec.map(Self).ok_or_else(|| format!("{text:?} is no time to run: at least 1ms is needed"))
    }
}

impl Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_millis(self.0.get())).fmt(f)
    }
}

impl<'de, T> Deserialize<'de> for Ceiling<T>
where
    T: FromStr<Err: Display> + Ord + Copy + Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CeilingVisitor(PhantomData))
    }
}

struct CeilingVisitor<T>(PhantomData<T>);

fn parse<T: FromStr<Err: Display> + Copy, E: de::Error>(text: &str) -> Result<Ceiling<T>, E> {
    let max = text.parse().map_err(E::custom)?;
    Ok(Ceiling { max, default: max })
}

impl<'de, T> Visitor<'de> for CeilingVisitor<T>
where
    T: FromStr<Err: Display> + Ord + Copy + Display,
{
    type Value = Ceiling<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the most, or { max = the most, default = what holds where nothing is asked for }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Ceiling<T>, E> {
        parse(text)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Ceiling<T>, E> {
        parse(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Ceiling<T>, E> {
        parse(&number.to_string())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Ceiling<T>, M::Error> {
        let (mut max, mut default) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            let place = match key.as_str() {
                "max" => &mut max,
                "default" => &mut default,
                _ => return Err(de::Error::unknown_field(&key, &["max", "default"])),
            };
            // A table's value is the same as one without a table, and is no table.
            *place = Some(map.next_value::<Scalar<T>>()?.0);
        }
        let max = max.ok_or_else(|| de::Error::missing_field("max"))?;
        let default = default.unwrap_or(max);
        if default > max {
            return Err(de::Error::custom(format_args!("default {default} is above max {max}")));
        }
        Ok(Ceiling { max, default })
    }
}

struct Scalar<T>(T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Scalar<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            value => return Err(de::Error::custom(format_args!("a {} is no value here", value.type_str()))),
        };
        text.parse().map(Self).map_err(de::Error::custom)
    }
}
