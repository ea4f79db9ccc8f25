//! `swarm-node status --watch` on a terminal: a screen that stays, and shows each look as it comes.

mod columns;
mod draw;
mod heights;
mod help;
mod keys;
mod memory;
mod parts;
mod screen;
mod servers;
mod wrap;

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ratatui::DefaultTerminal;
use swarm_client::overview::Watcher;

use self::keys::Keys;
use self::screen::{Flow, Screen};
use super::output::quiet_logs;
use super::stop::Stop;

/// How often ages on the screen go on although nothing is seen.
const TICK: Duration = Duration::from_secs(1);

/// Shows what `watcher` sees until the user, or a signal, ends it; leaves the terminal as it was, also after a panic.
/// `hint` says what to try while nobody serves the model.
///
/// # Errors
/// If the terminal cannot be drawn on.
pub(crate) async fn run(watcher: &Watcher, hint: Option<String>, stop: Stop) -> Result<()> {
    let terminal = ratatui::try_init().context("the terminal cannot be drawn on; leave --watch away")?;
    // Words between the lines would stay there.
    let logs = quiet_logs();
    let shown = show(terminal, watcher, Screen::hinting(hint), stop).await;
    ratatui::restore();
    drop(logs);
    Ok(shown?)
}

async fn show(mut terminal: DefaultTerminal, watcher: &Watcher, mut screen: Screen, stop: Stop) -> io::Result<()> {
    let mut keys = Keys::listen()?;
    let Some(mut listener) = watcher.listen() else {
        return Ok(());
    };
    let stop = stop.wait();
    tokio::pin!(stop);
    let mut tick = tokio::time::interval(TICK);
    loop {
        terminal.draw(|frame| draw::draw(frame, &mut screen, unix_ms()))?;
        let flow = tokio::select! {
            seen = listener.next() => match seen {
                Some(seen) => screen.see(seen),
                None => Flow::End,
            },
            event = keys.next() => match event {
                Some(event) => screen.event(&event),
                // The terminal is gone.
                None => Flow::End,
            },
            _ = tick.tick() => Flow::Stay,
            () = stop.as_mut() => Flow::End,
        };
        if flow == Flow::End {
            return Ok(());
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}
