//! `swarm-node drain`: lets a server on this machine leave, as SIGTERM does, and waits until it has.

use anyhow::{Result, anyhow, bail};
use clap::Args;
use clap::builder::FalseyValueParser;
use comfy_table::{Table, presets};
use futures::future::join_all;
use serde_json::json;

use super::control::{self, Found, Reply, State};
use super::hub::Bar;
use super::output::{Printer, plain};
use super::stop::or_interrupted;
use super::text_view::short;

/// The fewest last characters of a peer id that stand for it: as many as other commands show.
const SHORTEST_ID: usize = 6;

/// Let a server on this machine leave its swarm, and wait until it has.
///
/// It takes no new sessions, and running ones have its --drain-timeout to end or to move to another server. Interrupting
/// this command stops the waiting, not the leaving.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node drain            # the only server of yours on this machine
  swarm-node drain attic      # its --name, peer id (or its end) or process id
  swarm-node drain --all")]
pub(crate) struct DrainArgs {
    /// Which one: its name, peer id (or the end of it), or process id
    #[arg(value_name = "SERVER", conflicts_with = "all")]
    server: Option<String>,
    /// All of them
    #[arg(long, env = "SWARM_ALL", value_parser = FalseyValueParser::new())]
    all: bool,
    /// Print one JSON object a line
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: DrainArgs) -> Result<()> {
    if cfg!(not(unix)) {
        bail!("servers can be told to leave on Unix systems only; end one with Ctrl-C");
    }
    or_interrupted(async {
        let printer = Printer::new(args.json);
        let waiting = Bar::default();
        waiting.spin("looking for servers of yours");
        let found = control::find().await;
        waiting.done();
        let chosen = match choose(&found, args.server.as_deref(), args.all) {
            Ok(chosen) => chosen,
            Err(reason) => {
                if !found.is_empty() {
                    printer.note(table(&found));
                }
                return Err(anyhow!(reason));
            }
        };
        let drained = join_all(chosen.iter().map(|server| drain(printer, &waiting, server))).await;
        waiting.done();
        match drained.into_iter().flatten().collect::<Vec<_>>() {
            failed if failed.is_empty() => Ok(()),
            failed => Err(anyhow!(failed.join("; "))),
        }
    })
    .await
}

/// The servers that are meant.
fn choose<'a>(found: &'a [Found], server: Option<&str>, all: bool) -> Result<Vec<&'a Found>, String> {
    let meant: Vec<&Found> = match server {
        Some(server) => found.iter().filter(|found| is_meant(found, server)).collect(),
        None => found.iter().collect(),
    };
    match (meant.as_slice(), server) {
        ([], _) if found.is_empty() => {
            Err("no server of yours runs on this machine; `swarm-node status` shows those of a swarm".to_string())
        }
        ([], Some(server)) => Err(format!(
            "no server of yours on this machine is called \"{}\"; the table shows those that run",
            plain(server)
        )),
        ([_], _) => Ok(meant),
        _ if all => Ok(meant),
        (_, Some(server)) => {
            Err(format!("\"{}\" stands for {} servers; give a peer id or process id", plain(server), meant.len()))
        }
        (_, None) => Err(format!(
            "{} servers of yours run on this machine; say which one (name, peer id or process id), or --all",
            meant.len()
        )),
    }
}

fn is_meant(found: &Found, server: &str) -> bool {
    let is_peer = |peer: &String| peer == server || (server.len() >= SHORTEST_ID && peer.ends_with(server));
    let is_it =
        |about: &control::About| about.name.as_deref() == Some(server) || about.peer_id.as_ref().is_some_and(is_peer);
    found.pid.to_string() == server || found.about.as_ref().is_some_and(is_it)
}

/// A server as people know it.
fn called(found: &Found) -> String {
    let about = found.about.as_ref();
    let name = about.and_then(|about| about.name.as_deref().map(plain));
    let peer = about.and_then(|about| about.peer_id.as_deref()).map(|peer| format!("peer {}", plain(&short(peer))));
    let known: Vec<String> = peer.into_iter().chain([format!("process {}", found.pid)]).collect();
    match name {
        Some(name) => format!("{name} ({})", known.join(", ")),
        None => known.join(", "),
    }
}

fn table(found: &[Found]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["SERVER", "NAME", "MODEL", "BLOCKS", "STATE", "PROCESS"]);
    for server in found {
        let about = server.about.as_ref();
        let text = |text: Option<&str>| text.map_or_else(|| "-".to_string(), plain);
        let state = match about.map(|about| about.state) {
            Some(State::Starting) => "starting",
            Some(State::Serving) => "serving",
            Some(State::Leaving) => "leaving",
            None => "silent",
        };
        table.add_row([
            text(about.and_then(|about| about.peer_id.as_deref()).map(short).as_deref()),
            text(about.and_then(|about| about.name.as_deref())),
            text(about.map(|about| about.model.as_str())),
            about.and_then(|about| about.blocks).map_or_else(|| "-".to_string(), |blocks| blocks.to_string()),
            state.to_string(),
            server.pid.to_string(),
        ]);
    }
    table
}

/// What is waited for while a server leaves.
const BEGINS: &str = "waiting until it begins to leave";
const TELLS: &str = "telling the swarm; then its process ends";
const MOVES: &str = "moving its sessions and telling the swarm; then its process ends";

/// Drains one server and says how it goes; gives what went wrong.
async fn drain(printer: Printer, waiting: &Bar, server: &Found) -> Option<String> {
    let name = called(server);
    let peer = server.about.as_ref().and_then(|about| about.peer_id.clone());
    let about = |event: &str| json!({ "event": event, "peer_id": peer, "pid": server.pid });
    let tell = |reply: &Reply| {
        // Nothing is printed behind what turns.
        waiting.done();
        match reply {
            Reply::Leaving { sessions, within_ms } => {
                let mut event = about("leaving");
                event["sessions"] = json!(sessions);
                event["within_s"] = json!(*within_ms as f64 / 1000.0);
                printer.result(&event, format_args!("leaving   {name}: {}", moving(*sessions, *within_ms)));
                waiting.spin(if *sessions == 0 { TELLS } else { MOVES });
            }
            _ => {
                printer.result(&about("stopping"), format_args!("stopping  {name}"));
                waiting.spin(BEGINS);
            }
        }
    };
    match control::drain(server, tell).await {
        Ok(()) => {
            waiting.done();
            printer.result(&about("left"), format_args!("left      {name}"));
            // Others may still be on their way.
            waiting.spin(TELLS);
            None
        }
        Err(error) => Some(format!("{name} has not left as it should: {error:#}")),
    }
}

fn moving(sessions: u32, within_ms: u64) -> String {
    let within = within_ms as f64 / 1000.0;
    match sessions {
        0 => "no session is running".to_string(),
        1 => format!("1 session is moving, within {within} s"),
        many => format!("{many} sessions are moving, within {within} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::About;
    use super::*;

    fn server(pid: u32, name: Option<&str>, peer: &str) -> Found {
        let about = About {
            pid,
            peer_id: Some(peer.to_string()),
            name: name.map(ToString::to_string),
            model: "demo".to_string(),
            blocks: None,
            state: State::Serving,
        };
        Found { socket: "x".into(), pid, about: Some(about) }
    }

    #[test]
    fn one_server_is_meant_or_it_is_asked_which() {
        let attic = server(1, Some("attic"), "12D3KooWAAAAAAbc");
        let garage = server(2, Some("garage"), "12D3KooWBBBBBBbc");
        let twin = server(3, Some("garage"), "12D3KooWCCCCCCbc");
        let silent = Found { about: None, ..server(4, None, "") };
        let all = [attic, garage, twin, silent];
        let chosen = |found: &[Found], server: Option<&str>, every: bool| {
            choose(found, server, every).map(|chosen| chosen.iter().map(|found| found.pid).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&all[..1], None, false), Ok(vec![1]));
        assert_eq!(chosen(&all, None, true), Ok(vec![1, 2, 3, 4]));
        for (server, pid) in [("attic", 1), ("2", 2), ("12D3KooWBBBBBBbc", 2), ("CCCCbc", 3), ("4", 4)] {
            assert_eq!(chosen(&all, Some(server), false), Ok(vec![pid]), "{server}");
        }
        for (found, server, says) in [
            (&all[..], None, "4 servers"),
            (&all, Some("garage"), "stands for 2 servers"),
            (&all, Some("bc"), "is called"),
            (&all, Some(""), "is called"),
            (&[], None, "no server of yours"),
            (&[], Some("attic"), "no server of yours"),
        ] {
            let reason = chosen(found, server, false).unwrap_err();
            assert!(reason.contains(says), "{says:?} is not in {reason:?}");
        }
    }

    #[test]
    fn sessions_are_counted_as_people_do() {
        assert_eq!(moving(0, 30_000), "no session is running");
        assert_eq!(moving(1, 1500), "1 session is moving, within 1.5 s");
        assert_eq!(moving(2, 30_000), "2 sessions are moving, within 30 s");
    }
}
