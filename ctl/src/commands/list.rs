//! `jobctl list`: the jobs, oldest first.

use std::io::{self, IsTerminal};

use crate::cli::{Color, Format};
use crate::client::Client;
use crate::render::table::{self, Look};
use crate::{exit, render};

pub(crate) async fn list(client: &Client, format: Format, color: Color) -> anyhow::Result<u8> {
    let jobs = client.list().await?;
    match format {
        Format::Json => render::out(&render::json::jobs(&jobs)?)?,
        Format::Text => render::out(&table::jobs(&jobs, look(color)))?,
    }
    Ok(exit::SUCCESS)
}

fn look(color: Color) -> Look {
    let terminal = io::stdout().is_terminal();
    let color = match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => render::suits_color(terminal),
    };
    Look { color, shorten: terminal }
}
