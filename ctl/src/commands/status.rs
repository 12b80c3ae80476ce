//! `jobctl status`: what is known of a job.

use super::JobRef;
use crate::cli::Format;
use crate::client::Client;
use crate::{exit, render};

pub(crate) async fn status(client: &Client, format: Format, args: JobRef) -> anyhow::Result<u8> {
    let job = client.status(args.job).await?;
    render::job(format, &job, render::text::status)?;
    Ok(exit::SUCCESS)
}
