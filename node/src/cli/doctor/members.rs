//! The swarm: entry points, what its DHT answers, clocks and versions of its servers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use swarm_client::finder::{Probe, probe};
use swarm_client::{ClientConfig, Swarm};
use swarm_protocol::announcement::ServerState;
use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::{BootstrapPeer, Identity, Network, NetworkConfig, SwarmKey};

use super::check::{Check, Verdict, counted};
use crate::cli::common::{ListenArgs, SwarmArgs};

/// How long a server may take to describe itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Servers that are asked about themselves.
const MOST_ASKED: usize = 16;

/// How far clocks may be apart: a restarted server goes on above its former announcements if its clock does.
const CLOCKS_APART: Duration = Duration::from_secs(30);

/// All that other members tell.
pub(super) async fn members(swarm: &SwarmArgs, listen: &ListenArgs) -> Vec<Check> {
    let config = match config(swarm) {
        Ok(config) => config,
        // The key's own line says it.
        Err(error) => return vec![Check::bad("bootstrap", error.to_string(), "mend the swarm key first")],
    };
    if swarm.bootstrap.is_empty() && !swarm.mdns {
        let alone = "no --bootstrap peer was given, so no member can be asked";
        return vec![
            Check::could(
                "bootstrap",
                alone,
                "a first server needs none; to join a swarm, pass the line that a member printed",
            ),
            Check::could(
                "clock",
                "cannot be compared with anybody's while alone",
                "see that the time is synchronised (NTP)",
            ),
        ];
    }
    let dialled = swarm.bootstrap.iter().map(|peer| entry_point(swarm, peer.clone()));
    let mut checks: Vec<Check> = join_all(dialled).await;
    let answered = swarm.bootstrap.iter().zip(&checks).filter(|(_, check)| check.verdict == Verdict::Good);
    let bootstrap: Vec<BootstrapPeer> = answered.map(|(peer, _)| peer.clone()).collect();
    checks.extend(match bootstrap.is_empty() && !swarm.mdns {
        // Each entry point's line says why; it is not waited for twice.
        true => vec![nobody_asked()],
        false => within(NetworkConfig { bootstrap, ..config }).await,
    });
    checks.push(reachable(listen));
    checks
}

/// What members say who let this one in.
async fn within(config: NetworkConfig) -> Vec<Check> {
    let alone = config.bootstrap.is_empty();
    match Swarm::join(config, ClientConfig::default()).await {
        Ok(joined) => {
            let checks = look(&joined).await;
            joined.leave().await;
            checks
        }
        Err(error) if alone => {
            let next = "start a member with --mdns on this network, or pass --bootstrap";
            vec![Check::bad("bootstrap", error.to_string(), next)]
        }
        Err(_) => vec![nobody_asked()],
    }
}

fn nobody_asked() -> Check {
    Check::bad("DHT", "no member of the swarm could be asked", "mend the bootstrap peers first")
}

/// A client of the swarm under an id of its own: the member's may be in use.
fn config(swarm: &SwarmArgs) -> anyhow::Result<NetworkConfig> {
    Ok(NetworkConfig {
        identity: Identity::ephemeral(),
        swarm_key: swarm.swarm_key.as_deref().map(SwarmKey::read).transpose()?,
        mdns: swarm.mdns,
        ..NetworkConfig::client(swarm.swarm.clone(), swarm.bootstrap.clone())
    })
}

/// Dials one entry point alone.
async fn entry_point(swarm: &SwarmArgs, peer: BootstrapPeer) -> Check {
    let name = "bootstrap";
    let bad = |error: String| {
        // Errors of joining say what to do behind a semicolon.
        let (found, next) = error.split_once("; ").unwrap_or((&error, "ask who gave you this address"));
        Check::bad(name, found, next)
    };
    let started = async {
        let config = NetworkConfig { mdns: false, bootstrap: vec![peer.clone()], ..config(swarm)? };
        anyhow::Ok(Network::start(config).await?)
    };
    let network = match started.await {
        Ok((network, _)) => network,
        Err(error) => return bad(error.to_string()),
    };
    let joined = network.join(std::slice::from_ref(&peer)).await;
    network.shut_down().await;
    match joined {
        Ok(()) => Check::good(name, format!("{peer} answers and is of swarm \"{}\"", swarm.swarm)),
        Err(error) => bad(error.to_string()),
    }
}

/// What the DHT and the servers in it say.
async fn look(swarm: &Swarm) -> Vec<Check> {
    let models = swarm.models().await;
    if models.is_empty() {
        let found = "answers, and knows no model yet";
        let next = "start a server, or wait a minute if one has just started";
        let clock = "no server's announcement can be compared with this machine's";
        return vec![
            Check::could("DHT", found, next),
            Check::could("clock", clock, "see that the time is synchronised (NTP)"),
        ];
    }
    let blocks = |number: u32| counted(number as usize, "block", "blocks");
    let names: Vec<String> =
        models.values().map(|entry| format!("{} ({})", entry.name, blocks(entry.blocks))).collect();
    let mut servers = Vec::new();
    for (model, entry) in &models {
        if let Ok(blocks) = BlockRange::new(0, entry.blocks) {
            let view = swarm.look_up(*model, blocks).await;
            // Who has said good-bye need not answer.
            servers.extend(view.all().filter(|server| server.state != ServerState::Leaving).cloned());
        }
    }
    let found = counted(servers.len(), "server", "servers");
    servers.truncate(MOST_ASKED);
    let asked = servers.iter().map(|server| async move {
        let answer = probe(swarm.network(), server.peer, &server.addresses, ANSWER_WITHIN).await;
        answer.map(|answer| (answer, unix_millis())).map_err(|error| error.reason())
    });
    let (answers, silent): (Vec<_>, Vec<_>) = join_all(asked).await.into_iter().partition(Result::is_ok);
    let answers: Vec<(Probe, i128)> = answers.into_iter().flatten().collect();
    let why = silent.into_iter().find_map(Result::err);
    let dht = Check::good("DHT", format!("answers: {found} of {}", names.join(", ")));
    vec![dht, answering(servers.len(), &answers, why.as_deref()), clock(&answers), versions(&answers)]
}

/// How many of the servers that were asked answer, and `why` one does not.
fn answering(asked: usize, answers: &[(Probe, i128)], why: Option<&str>) -> Check {
    let name = "servers";
    let slowest = answers.iter().map(|(probe, _)| probe.rtt).max().unwrap_or_default();
    let found = format!("{} of {asked} asked answer, within {:.1} ms", answers.len(), slowest.as_secs_f64() * 1000.0);
    match answers.len() {
        0 if asked == 0 => Check::could(
            name,
            "none is announced, so none was asked",
            "start one, or wait a minute if one has just started",
        ),
        all if all == asked => Check::good(name, found),
        // An entry point has answered, so this machine reaches others.
        0 => Check::bad(
            name,
            format!("none of {asked} asked answers ({})", why.unwrap_or("no answer")),
            "they may be gone: dead ones are forgotten within four minutes, look again then; if they run, see that their \
             ports are open, and that this machine may dial out to them",
        ),
        _ => Check::could(
            name,
            found,
            "those that do not answer cannot be reached from here; `swarm-node status` names them",
        ),
    }
}

/// Announcements are numbered by their server's clock, and a server that is asked makes a new one.
fn clock(answers: &[(Probe, i128)]) -> Check {
    let mut apart: Vec<i128> =
        answers.iter().map(|(probe, now)| i128::from(probe.info.announcement.sequence) - now).collect();
    apart.sort_unstable();
    let Some(median) = apart.get(apart.len() / 2).copied() else {
        return Check::could("clock", "no server answered to compare with", "see that the time is synchronised (NTP)");
    };
    let seconds = median.unsigned_abs() as f64 / 1000.0;
    let side = if median > 0 { "behind" } else { "ahead of" };
    let found = format!("{seconds:.1} s {side} that of {}", counted(answers.len(), "server", "servers"));
    if median.unsigned_abs() <= CLOCKS_APART.as_millis() {
        Check::good("clock", found)
    } else {
        Check::could("clock", found, "synchronise the time (NTP); logs and restarted servers go by it")
    }
}

fn versions(answers: &[(Probe, i128)]) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    if answers.is_empty() {
        let found = format!("this is {own}; no server answered to compare with");
        return Check::could("versions", found, "look again when servers answer");
    }
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for (probe, _) in answers {
        *others.entry(probe.info.announcement.version.as_str()).or_default() += 1;
    }
    let told: Vec<String> = others.iter().map(|(version, count)| format!("{count} of {version}")).collect();
    let found = format!("this is {own}; servers: {}", told.join(", "));
    match others.keys().all(|version| *version == own) {
        true => Check::good("versions", found),
        false => {
            Check::could("versions", found, "they work together as long as sessions open; bring all to the newest")
        }
    }
}

/// The protocol has no question by which a member dials back.
fn reachable(listen: &ListenArgs) -> Check {
    let next = "from another machine, run `swarm-node doctor --bootstrap` with the address that `serve` prints";
    let found = match listen.announce.as_slice() {
        [] => {
            "cannot be told from here: members answer those who dial them, and dial nobody back for a test".to_string()
        }
        announced => {
            let announced: Vec<String> = announced.iter().map(ToString::to_string).collect();
            format!("whether {} leads here cannot be told from here", announced.join(", "))
        }
    };
    Check::could("from outside", found, next)
}

fn unix_millis() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_answers_nothing_is_ticked() {
        let none = answering(0, &[], None);
        assert!(none.verdict == Verdict::Could && none.found.contains("none was asked"), "{none}");
        let dead = answering(2, &[], Some("it cannot be reached: refused"));
        assert!(dead.verdict == Verdict::Bad && dead.found.contains("refused"), "{dead}");
        assert!(dead.next.is_some_and(|next| next.contains("may be gone")));
        assert_eq!((versions(&[]).verdict, clock(&[]).verdict), (Verdict::Could, Verdict::Could));
    }
}
