//! What is wrong with a model's servers, or soon will be. Pure.

use std::collections::{BTreeSet, HashMap};

use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::swarm_view::uncovered;

use super::types::{Alarm, AlarmKind, ModelOverview, ServerCondition, ServerOverview, Severity};

/// Servers named in a message; more are counted.
const NAMED: usize = 4;

/// Everything that is wrong with `model`.
pub(super) fn of(model: &ModelOverview) -> Vec<Alarm> {
    [missing(model), no_common_class(model), single(model), silent(model), draining(model), versions(model)]
        .into_iter()
        .flatten()
        .collect()
}

fn missing(model: &ModelOverview) -> Option<Alarm> {
    if model.missing.is_empty() {
        return None;
    }
    let message = format!(
        "nobody serves blocks {} of {}: start a server for them, \
         or wait for one that can move there",
        ranges(&model.missing),
        model.name
    );
    Some(alarm(model, Severity::Critical, AlarmKind::MissingBlocks, vec![], model.missing.clone(), message))
}

fn no_common_class(model: &ModelOverview) -> Option<Alarm> {
    let covered = model.missing.is_empty() && model.classes.len() > 1;
    if !covered || model.classes.iter().any(|class| class.missing.is_empty()) {
        return None;
    }
    let message = format!(
        "every block of {} is served, but by servers of {} numeric classes, none of which has them all: \
         use --mix-classes, or start servers of one class",
        model.name,
        model.classes.len()
    );
    Some(alarm(model, Severity::Critical, AlarmKind::NoCommonClass, vec![], vec![], message))
}

fn single(model: &ModelOverview) -> Option<Alarm> {
    let all = BlockRange::new(0, model.blocks).ok()?;
    let is_single = |block: u32| model.replicas.get(block as usize) == Some(&1);
    let others =
        (0..model.blocks).filter(|block| !is_single(*block)).filter_map(|block| BlockRange::new(block, block + 1).ok());
    let blocks = uncovered(all, others);
    if blocks.is_empty() {
        return None;
    }
    let alone = |server: &&ServerOverview| {
        let hosts = |range: &BlockRange| server.blocks.intersection(*range).is_some();
        server.state.serves() && blocks.iter().any(hosts)
    };
    let servers: Vec<&ServerOverview> = model.servers.iter().filter(alone).collect();
    let (blocks_of, names) = (format!("blocks {} of {}", ranges(&blocks), model.name), names(model, &servers));
    let message = match servers.len() {
        1 => format!("{blocks_of} have one server only ({names}): if it is lost, texts wait until another has them"),
        _ => format!(
            "each of {blocks_of} has one server only ({names}): if one is lost, texts wait until another has its blocks"
        ),
    };
    Some(alarm(model, Severity::Warning, AlarmKind::SinglePointOfFailure, peers(&servers), blocks, message))
}

fn silent(model: &ModelOverview) -> Option<Alarm> {
    let servers = in_state(model, ServerCondition::Silent);
    let message = format!(
        "{} of {} ({}) {} announced and {} not answer: lost, or cut off from here",
        count(&servers),
        model.name,
        names(model, &servers),
        if servers.len() == 1 { "is" } else { "are" },
        if servers.len() == 1 { "does" } else { "do" },
    );
    of_servers(model, Severity::Warning, AlarmKind::SilentServers, &servers, message)
}

fn draining(model: &ModelOverview) -> Option<Alarm> {
    let servers = in_state(model, ServerCondition::Leaving);
    let message = format!(
        "{} of {} ({}) {} leaving: running texts move to others",
        count(&servers),
        model.name,
        names(model, &servers),
        if servers.len() == 1 { "is" } else { "are" },
    );
    of_servers(model, Severity::Info, AlarmKind::Draining, &servers, message)
}

fn versions(model: &ModelOverview) -> Option<Alarm> {
    let versions: BTreeSet<&str> = model.servers.iter().map(|server| server.version.as_str()).collect();
    if versions.len() < 2 {
        return None;
    }
    let named: Vec<&str> = versions.iter().rev().take(NAMED).copied().collect();
    let message = format!("servers of {} run {} releases ({})", model.name, versions.len(), named.join(", "));
    Some(alarm(model, Severity::Info, AlarmKind::VersionSkew, vec![], vec![], message))
}

fn in_state(model: &ModelOverview, state: ServerCondition) -> Vec<&ServerOverview> {
    model.servers.iter().filter(|server| server.state == state).collect()
}

fn of_servers(
    model: &ModelOverview,
    severity: Severity,
    kind: AlarmKind,
    servers: &[&ServerOverview],
    message: String,
) -> Option<Alarm> {
    let hosted = servers.iter().map(|server| server.blocks);
    let blocks = hosted.collect::<BTreeSet<_>>().into_iter().collect();
    (!servers.is_empty()).then(|| alarm(model, severity, kind, peers(servers), blocks, message))
}

fn alarm(
    model: &ModelOverview,
    severity: Severity,
    kind: AlarmKind,
    peers: Vec<PeerId>,
    blocks: Vec<BlockRange>,
    message: String,
) -> Alarm {
    Alarm { severity, kind, model_id: model.model_id.clone(), peers, blocks, message }
}

fn peers(servers: &[&ServerOverview]) -> Vec<PeerId> {
    servers.iter().map(|server| server.peer_id).collect()
}

fn count(servers: &[&ServerOverview]) -> String {
    match servers.len() {
        1 => "one server".to_string(),
        more => format!("{more} servers"),
    }
}

/// `attic, cellar and 12 more`.
fn names(model: &ModelOverview, servers: &[&ServerOverview]) -> String {
    let labels: HashMap<PeerId, String> =
        model.servers.iter().map(|server| server.peer_id).zip(model.labels()).collect();
    let named = servers.iter().take(NAMED);
    let mut names: Vec<String> = named.filter_map(|server| labels.get(&server.peer_id).cloned()).collect();
    if let Some(more) = servers.len().checked_sub(NAMED).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    match names.split_last() {
        Some((last, [_, ..])) => format!("{} and {last}", names[..names.len() - 1].join(", ")),
        Some((only, [])) => only.clone(),
        None => String::new(),
    }
}

/// `0..6, 9..12`.
pub(super) fn ranges(ranges: &[BlockRange]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use swarm_protocol::announcement::ServerState;
    use swarm_protocol::model_id::NumericClass;

    use super::super::observation::{Observation, ServerObservation};
    use super::super::testing::{model, range, server, silent};
    use super::super::types::SwarmOverview;
    use super::*;

    fn alarms(servers: Vec<ServerObservation>) -> Vec<Alarm> {
        let models = vec![model(12, servers)];
        let (swarm, by) = ("public".to_string(), PeerId::random());
        SwarmOverview::of(&Observation { swarm, by, models, cut_off: false }, 0).alarms
    }

    fn kinds(alarms: &[Alarm]) -> Vec<AlarmKind> {
        alarms.iter().map(|alarm| alarm.kind).collect()
    }

    #[test]
    fn two_servers_for_each_block_raise_no_alarm() {
        assert!(alarms(vec![server("a", 0, 12), server("b", 0, 6), server("c", 6, 12)]).is_empty());
    }

    #[test]
    fn a_hole_comes_before_everything_else() {
        let alarms = alarms(vec![server("a", 0, 6), silent(server("b", 6, 12))]);
        let expected = [AlarmKind::MissingBlocks, AlarmKind::SinglePointOfFailure, AlarmKind::SilentServers];
        assert_eq!(kinds(&alarms), expected);
        assert_eq!((alarms[0].severity, &alarms[0].blocks), (Severity::Critical, &vec![range(6, 12)]));
        assert_eq!(alarms[1].blocks, [range(0, 6)]);
        assert!(alarms[2].message.contains("(b)"), "{}", alarms[2].message);
    }

    #[test]
    fn the_one_server_that_must_not_be_lost_is_named() {
        let alarms = alarms(vec![server("a", 0, 8), server("b", 0, 8), server("c", 4, 12)]);
        assert_eq!(kinds(&alarms), [AlarmKind::SinglePointOfFailure]);
        assert_eq!((alarms[0].blocks.clone(), alarms[0].peers.len()), (vec![range(8, 12)], 1));
        let expected =
            "blocks 8..12 of demo have one server only (c): if it is lost, texts wait until another has them";
        assert_eq!(alarms[0].message, expected);
    }

    #[test]
    fn several_servers_without_a_replica_are_no_contradiction() {
        let alarms = alarms(vec![server("attic", 0, 6), server("garage", 6, 12)]);
        let expected = "each of blocks 0..12 of demo has one server only (attic and garage): \
                        if one is lost, texts wait until another has its blocks";
        assert_eq!((alarms.len(), alarms[0].message.as_str()), (1, expected));
    }

    #[test]
    fn servers_of_one_name_are_told_apart_by_the_ends_of_their_ids() {
        let servers = vec![server("two", 0, 12), silent(server("two", 0, 12)), silent(server("two", 0, 12))];
        let called: Vec<String> = servers[1..]
            .iter()
            .map(|server| server.announcement.peer.to_string())
            .map(|id| format!("two …{}", &id[id.len() - 8..]))
            .collect();
        let alarms = alarms(servers);
        let message = &alarms.iter().find(|alarm| alarm.kind == AlarmKind::SilentServers).unwrap().message;
        assert!(called.iter().all(|name| message.contains(name)), "{called:?} in {message}");
    }

    #[test]
    fn classes_that_do_not_fit_together_are_as_bad_as_a_hole() {
        let mut other = server("b", 6, 12);
        other.announcement.class = NumericClass::new("q8_0/fma/x86_64-linux").unwrap();
        let alarms = alarms(vec![server("a", 0, 6), other]);
        assert_eq!(alarms[0].kind, AlarmKind::NoCommonClass);
    }

    #[test]
    fn who_leaves_and_who_is_of_another_release_is_told() {
        let mut leaving = server("b", 0, 12);
        leaving.announcement.state = ServerState::Leaving;
        leaving.announcement.version = "0.2.0".to_string();
        let alarms = alarms(vec![server("a", 0, 12), server("c", 0, 12), leaving]);
        assert_eq!(kinds(&alarms), [AlarmKind::Draining, AlarmKind::VersionSkew]);
    }

    #[test]
    fn many_names_are_counted() {
        let servers: Vec<_> = (0..6).map(|number| silent(server(&format!("s{number}"), 0, 12))).collect();
        let alarms = alarms(servers);
        let silent = alarms.iter().find(|alarm| alarm.kind == AlarmKind::SilentServers).unwrap();
        assert!(silent.message.contains("and 2 more"), "{}", silent.message);
    }
}
