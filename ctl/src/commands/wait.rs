//! `jobctl wait`: waits for a job's end, prints how it ended and exits with its code.

use super::JobRef;
use crate::cli::Format;
use crate::client::Client;
use crate::outcome::Outcome;
use crate::{exit, render};

pub(crate) async fn wait(client: &Client, format: Format, args: JobRef) -> anyhow::Result<u8> {
    let job = client.wait(args.job).await?;
    render::job(format, &job, render::text::ended)?;
    Ok(exit::of_outcome(&Outcome::of_finished(&job)?))
}
