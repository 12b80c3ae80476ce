//! A connection that is made anew when it breaks, so that a command outlives a restart of the worker and a broken
//! network. Only for calls that may be repeated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use clap::builder::FalseyValueParser;
use tokio::sync::Mutex;

use crate::call_error::outage_cause;
use crate::client::Client;
use crate::render;

/// Before the first attempt; twice as long before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What to do when the connection breaks.
#[derive(Args, Debug)]
pub(crate) struct ReconnectArgs {
    /// Fail when the connection to the worker breaks, instead of connecting anew and going on
    #[arg(long, env = "JOBCTL_NO_RECONNECT", hide_env_values = true, value_parser = FalseyValueParser::new())]
    no_reconnect: bool,
    /// How long to go on trying to connect anew when a connection broke (an attempt takes up to 20s)
    #[arg(
        long,
        env = "JOBCTL_RECONNECT_TIMEOUT",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "5m",
        value_parser = humantime::parse_duration
    )]
    reconnect_timeout: Duration,
}

/// The connection of a command, as long as that lasts.
pub(crate) struct Link {
    /// How long to try to connect anew; `None`: not at all.
    patience: Option<Duration>,
    /// Locked while it is being made anew, so that calls which broke together share one attempt.
    line: Mutex<Line>,
}

struct Line {
    client: Client,
    /// The latest one.
    outage: Option<Outage>,
}

/// From the first break until an answer that is of use, however many connections are made and break meanwhile: a worker
/// that accepts connections and drops them is asked less and less often, and not for ever.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Outage {
    /// When it began, or when the worker last answered.
    since: Instant,
    /// Before the next attempt.
    pause: Duration,
    /// Whether there is a connection again.
    connected: bool,
    /// When the worker answered over this connection.
    answered: Option<Instant>,
}

impl Link {
    pub(crate) fn new(client: Client, args: &ReconnectArgs) -> Self {
        let patience = (!args.no_reconnect).then_some(args.reconnect_timeout);
        Self { patience, line: Mutex::new(Line { client, outage: None }) }
    }

    /// Calls the worker; again, over a new connection, as often as the connection breaks.
    ///
    /// # Errors
    /// The call's own, or there is no connection to be had.
    pub(crate) async fn call<T>(
        &self,
        mut call: impl AsyncFnMut(&Client) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        loop {
            let client = self.line.lock().await.client.clone();
            match call(&client).await {
                Err(error) if outage_cause(&error).is_some() => self.replace(&client, error).await?,
                answer => {
                    self.was_of_use();
                    return answer;
                }
            }
        }
    }

    /// The connection as it is now, for a call that nothing hangs on.
    pub(crate) async fn client(&self) -> Client {
        self.line.lock().await.client.clone()
    }

    /// The connection has been of use: the next outage has nothing to do with the one before.
    pub(crate) fn was_of_use(&self) {
        if let Ok(mut line) = self.line.try_lock() {
            line.outage = None;
        }
    }

    /// The worker has answered, and what it answered may lead to nothing. The time to go on trying counts from here; and if
    /// the connection lasts, the next outage is another one.
    pub(crate) fn was_answered(&self) {
        if let Ok(mut line) = self.line.try_lock()
            && let Some(outage) = &mut line.outage
        {
            outage.answer(Instant::now());
        }
    }

    /// Whether it is being made anew now.
    pub(crate) fn is_down(&self) -> bool {
        self.line.try_lock().is_err()
    }

    /// Has another connection instead of `broken`.
    async fn replace(&self, broken: &Client, error: anyhow::Error) -> anyhow::Result<()> {
        let Some(patience) = self.patience else { return Err(error) };
        let mut line = self.line.lock().await;
        // Another call that broke at the same time may have seen to it already.
        if line.client.is(broken) { line.reconnect(patience, &error).await } else { Ok(()) }
    }
}

impl Line {
    async fn reconnect(&mut self, patience: Duration, broken: &anyhow::Error) -> anyhow::Result<()> {
        let latest = self.outage;
        let outage = self.outage.insert(Outage::after(latest, Instant::now()));
        // Else it was said, by a call that has given up.
        if latest.is_none_or(|latest| latest.connected) {
            let cause = outage_cause(broken).unwrap_or_default();
            if latest.is_some() && outage.has_lasted(patience) {
                let patience = humantime::format_duration(patience);
                bail!("{broken:#}; gave up after {patience} without an answer");
            }
            render::note(&format!("lost the connection to the worker ({cause}); reconnecting"));
        }
        let target = self.client.target();
        loop {
            let left = patience.saturating_sub(outage.since.elapsed());
            tokio::time::sleep(outage.pause.min(left)).await;
            // Boxed: large, and seldom needed.
            match Box::pin(Client::connect(Arc::clone(target))).await {
                Ok(client) => {
                    render::note(&format!("reconnected to the worker at {}", target.address));
                    outage.connected = true;
                    self.client = client;
                    return Ok(());
                }
                Err(error) if outage_cause(&error).is_none() => return Err(error),
                Err(error) if outage.has_lasted(patience) => {
                    let patience = humantime::format_duration(patience);
                    bail!("{broken:#}; gave up connecting anew after {patience}: {error:#}");
                }
                Err(_) => outage.pause = longer(outage.pause),
            }
        }
    }
}

impl Outage {
    /// The outage that a connection which breaks `now` belongs to.
    fn after(latest: Option<Self>, now: Instant) -> Self {
        let begun = Self { since: now, pause: FIRST_PAUSE, connected: false, answered: None };
        match latest {
            Some(latest) if !latest.connected => latest,
            Some(latest) if !latest.is_over(now) => {
                Self { pause: longer(latest.pause), connected: false, answered: None, ..latest }
            }
            _ => begun,
        }
    }

    /// The worker answered, and went on serving the connection for longer than the pause before it.
    fn is_over(&self, now: Instant) -> bool {
        self.answered.is_some_and(|answered| now.duration_since(answered) > self.pause)
    }

    fn answer(&mut self, now: Instant) {
        (self.since, self.answered) = (now, Some(now));
    }

    fn has_lasted(&self, patience: Duration) -> bool {
        self.since.elapsed() >= patience
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a worker is connected to in the first minute, if each connection is made at once and lasts for `lasting`;
    /// and since when it is away at the end. `answers` says whether each connection brings an answer.
    fn first_minute(lasting: Duration, answers: bool) -> (usize, Duration) {
        let start = Instant::now();
        let (mut now, mut outage, mut connections) = (start, None, 0);
        while now < start + Duration::from_secs(60) {
            let next = Outage::after(outage, now);
            now += next.pause;
            connections += 1;
            let mut next = Outage { connected: true, ..next };
            if answers {
                next.answer(now);
            }
            now += lasting;
            outage = Some(next);
        }
        (connections, outage.map_or(Duration::ZERO, |outage| now - outage.since))
    }

    #[test]
    fn connections_without_an_answer_are_one_outage_however_long_they_last() {
        for lasting in [0, 50, 150, 1_000, 10_000].map(Duration::from_millis) {
            let (connections, away) = first_minute(lasting, false);
            assert!(connections <= 20, "{connections} connections of {lasting:?}");
            assert!(away >= Duration::from_secs(55), "{away:?}");
        }
    }

    #[test]
    fn an_answer_counts_for_the_time_and_a_connection_that_lasts_for_the_pause() {
        let (connections, away) = first_minute(Duration::from_millis(50), true);
        assert!(connections <= 20 && away < Duration::from_secs(6), "{connections} connections, {away:?}");
        // A proxy that cuts idle connections.
        let (connections, _) = first_minute(Duration::from_secs(10), true);
        let now = Instant::now();
        let mut outage = Outage { connected: true, ..Outage::after(None, now) };
        outage.answer(now);
        assert_eq!(connections, 6);
        assert_eq!(Outage::after(Some(outage), now + Duration::from_secs(10)).pause, FIRST_PAUSE);
    }

    #[test]
    fn an_attempt_that_was_given_up_is_continued() {
        let begun = Outage { pause: LONGEST_PAUSE, ..Outage::after(None, Instant::now()) };
        assert_eq!(Outage::after(Some(begun), Instant::now() + LONGEST_PAUSE), begun);
    }
}
