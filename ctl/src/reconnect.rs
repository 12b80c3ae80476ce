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

#[derive(Clone, Copy)]
struct Outage {
    began: Instant,
    /// Before the next attempt.
    pause: Duration,
    /// When there was a connection again.
    over: Option<Instant>,
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
                answer => return answer,
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
        let outage = self.outage.insert(match self.outage {
            // The call that saw to it has given up.
            Some(outage) if outage.over.is_none() => outage,
            latest => {
                let cause = outage_cause(broken).unwrap_or_default();
                render::note(&format!("lost the connection to the worker ({cause}); reconnecting"));
                Outage::after(latest)
            }
        });
        let target = self.client.target();
        loop {
            let left = patience.saturating_sub(outage.began.elapsed());
            tokio::time::sleep(outage.pause.min(left)).await;
            // Boxed: large, and seldom needed.
            match Box::pin(Client::connect(Arc::clone(target))).await {
                Ok(client) => {
                    render::note(&format!("reconnected to the worker at {}", target.address));
                    outage.over = Some(Instant::now());
                    self.client = client;
                    return Ok(());
                }
                Err(error) if outage_cause(&error).is_none() => return Err(error),
                Err(error) if outage.began.elapsed() >= patience => {
                    let patience = humantime::format_duration(patience);
                    bail!("{broken:#}; gave up connecting anew after {patience}: {error:#}");
                }
                Err(_) => outage.pause = longer(outage.pause),
            }
        }
    }
}

impl Outage {
    /// A connection that was of no use and did not outlast the pause before it is no end of the outage `latest`: a worker
    /// that accepts connections and drops them is asked less and less often, and not for ever.
    fn after(latest: Option<Self>) -> Self {
        match latest {
            Some(latest) if latest.over.is_none_or(|over| over.elapsed() <= latest.pause) => {
                Self { pause: longer(latest.pause), over: None, ..latest }
            }
            _ => Self { began: Instant::now(), pause: FIRST_PAUSE, over: None },
        }
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended_before(ago: Duration, pause: Duration) -> Option<Outage> {
        let over = Instant::now().checked_sub(ago).expect("the clock has run for a while");
        Some(Outage { began: over, pause, over: Some(over) })
    }

    #[test]
    fn a_connection_that_lasted_begins_anew_and_one_that_did_not_goes_on() {
        let second = Duration::from_secs(1);
        let first = Outage::after(None);
        assert_eq!((first.pause, first.over), (FIRST_PAUSE, None));
        assert_eq!(Outage::after(ended_before(2 * second, second)).pause, FIRST_PAUSE);
        let latest = ended_before(second, 4 * second);
        let same = Outage::after(latest);
        assert_eq!((Some(same.began), same.pause), (latest.map(|latest| latest.began), LONGEST_PAUSE));
    }
}
