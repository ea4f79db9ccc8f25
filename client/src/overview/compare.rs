//! What has happened between two looks. Pure.

use std::collections::BTreeMap;

use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::ModelId;
use swarm_protocol::swarm_view::uncovered;

use super::alarms::ranges;
use super::observation::{Answer, ModelObservation, Observation, ServerObservation};
use super::timeline::EventKind;
use super::types::{ServerCondition, apart, label};

/// Something that has happened between two looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// What.
    pub kind: EventKind,
    /// The model it happened to.
    pub model: ModelId,
    /// Its name.
    pub model_name: String,
    /// The server it happened to, and what people call it; none if it is about the model.
    pub server: Option<(PeerId, String)>,
    /// The blocks it is about.
    pub blocks: Vec<BlockRange>,
    /// One line for people.
    pub message: String,
}

/// What has happened from `before` to `after`, model by model.
pub fn compare(before: &Observation, after: &Observation) -> Vec<Happening> {
    let old: BTreeMap<ModelId, &ModelObservation> = before.models.iter().map(|model| (model.id, model)).collect();
    let new: BTreeMap<ModelId, &ModelObservation> = after.models.iter().map(|model| (model.id, model)).collect();
    let mut happened = Vec::new();
    for (id, model) in &new {
        match old.get(id) {
            Some(old) => of_model(old, model, &mut happened),
            None => appeared(model, &mut happened),
        }
    }
    for (_, model) in old.iter().filter(|(id, _)| !new.contains_key(id)) {
        let empty = ModelObservation { servers: Vec::new(), ..(*model).clone() };
        of_model(model, &empty, &mut happened);
        let message = format!("{} is no longer served", model.name);
        happened.push(of_the_model(model, EventKind::ModelGone, vec![], message));
    }
    happened
}

fn appeared(model: &ModelObservation, happened: &mut Vec<Happening>) {
    let message = format!("{} is served here now ({} blocks)", model.name, model.blocks.len());
    happened.push(of_the_model(model, EventKind::ModelAppeared, vec![model.blocks], message));
    let empty = ModelObservation { servers: Vec::new(), ..model.clone() };
    of_model(&empty, model, happened);
}

fn of_model(before: &ModelObservation, after: &ModelObservation, happened: &mut Vec<Happening>) {
    let old = by_peer(before);
    let new = by_peer(after);
    for (peer, now) in &new {
        of_server(after, old.get(peer).copied(), now, happened);
    }
    for (_, was) in old.iter().filter(|(peer, _)| !new.contains_key(peer)) {
        vanished(after, was, happened);
    }
    coverage(before, after, happened);
}

fn by_peer(model: &ModelObservation) -> BTreeMap<PeerId, &ServerObservation> {
    model.servers.iter().map(|server| (server.announcement.peer, server)).collect()
}

fn of_server(
    model: &ModelObservation,
    was: Option<&ServerObservation>,
    now: &ServerObservation,
    happened: &mut Vec<Happening>,
) {
    use ServerCondition as State;
    let mut say = |kind, blocks, words: String| happened.push(of_the_server(model, now, kind, blocks, &words));
    let blocks = now.announcement.blocks;
    let before = was.and_then(|was| Some((was, was.condition()?)));
    let Some((was, old)) = before else {
        match now.condition() {
            Some(State::Joining) => say(EventKind::Joined, blocks, format!("joins for blocks {blocks}")),
            Some(State::Serving | State::Announced) => {
                say(EventKind::Joined, blocks, format!("serves blocks {blocks}"))
            }
            // Nobody has seen it live.
            Some(State::Leaving | State::Silent) | None => {}
        }
        return;
    };
    let Some(new) = now.condition() else {
        say(EventKind::Left, blocks, format!("has left; it had blocks {blocks}"));
        return;
    };
    match (old, new) {
        (State::Silent, State::Silent) => {}
        (_, State::Silent) => {
            let why = match &now.answer {
                Answer::Silent { reason } => format!(" ({reason})"),
                _ => String::new(),
            };
            say(EventKind::Lost, blocks, format!("was lost with blocks {blocks}{why}"));
        }
        (State::Silent, _) => say(EventKind::Returned, blocks, format!("is back with blocks {blocks}")),
        _ if was.announcement.instance != now.announcement.instance => {
            say(EventKind::Returned, blocks, format!("was restarted, with blocks {blocks}"));
        }
        _ if was.announcement.blocks != blocks => {
            let from = was.announcement.blocks;
            say(EventKind::Moved, blocks, format!("moves from blocks {from} to {blocks}"));
        }
        (State::Joining, State::Serving | State::Announced) => {
            say(EventKind::Serving, blocks, format!("is ready: it serves blocks {blocks}"));
        }
        (State::Serving | State::Announced | State::Joining, State::Leaving) => {
            say(EventKind::Leaving, blocks, format!("is leaving; it takes no new sessions for blocks {blocks}"));
        }
        (State::Serving | State::Announced, State::Joining) => {
            say(EventKind::Moved, blocks, format!("loads blocks {blocks} anew"));
        }
        (State::Leaving, State::Serving | State::Announced) => {
            say(EventKind::Serving, blocks, format!("stays: it serves blocks {blocks}"));
        }
        _ => {}
    }
}

/// A server that is neither announced nor answers any more.
fn vanished(model: &ModelObservation, was: &ServerObservation, happened: &mut Vec<Happening>) {
    let blocks = was.announcement.blocks;
    let (kind, words) = match was.condition() {
        // That it was lost, or has left, has been told.
        None | Some(ServerCondition::Silent) => return,
        Some(ServerCondition::Leaving) => (EventKind::Left, format!("has left; it had blocks {blocks}")),
        Some(_) => (EventKind::Lost, format!("was lost with blocks {blocks}")),
    };
    happened.push(of_the_server(model, was, kind, blocks, &words));
}

/// Whether the model has become usable, or ceased to be.
fn coverage(before: &ModelObservation, after: &ModelObservation, happened: &mut Vec<Happening>) {
    let missing = |model: &ModelObservation| {
        let serving = model.servers.iter().filter(|server| server.serves());
        uncovered(after.blocks, serving.map(|server| server.announcement.blocks))
    };
    let (old, new) = (missing(before), missing(after));
    if old.is_empty() && !new.is_empty() {
        let message = format!("{} cannot be used: nobody serves blocks {}", after.name, ranges(&new));
        happened.push(of_the_model(after, EventKind::Broken, new, message));
    } else if !old.is_empty() && new.is_empty() {
        let message = format!("{} can be used: every block is served", after.name);
        happened.push(of_the_model(after, EventKind::Whole, vec![after.blocks], message));
    }
}

fn of_the_model(model: &ModelObservation, kind: EventKind, blocks: Vec<BlockRange>, message: String) -> Happening {
    Happening { kind, model: model.id, model_name: model.name.clone(), server: None, blocks, message }
}

fn of_the_server(
    model: &ModelObservation,
    server: &ServerObservation,
    kind: EventKind,
    blocks: BlockRange,
    words: &str,
) -> Happening {
    let peer = server.announcement.peer;
    let name = label(server.announcement.name.as_deref(), &peer);
    let namesake = |other: &ServerObservation| {
        let other = &other.announcement;
        other.peer != peer && label(other.name.as_deref(), &other.peer) == name
    };
    let called = if model.servers.iter().any(namesake) { apart(&name, &peer) } else { name.clone() };
    let message = format!("{called} {words}");
    let server = Some((peer, name));
    Happening { kind, model: model.id, model_name: model.name.clone(), server, blocks: vec![blocks], message }
}

#[cfg(test)]
mod tests {
    use swarm_protocol::announcement::ServerState;

    use super::super::testing::{model, range, server, silent};
    use super::*;

    fn look(servers: &[&ServerObservation]) -> Observation {
        let servers = servers.iter().map(|server| (*server).clone()).collect();
        let models = vec![model(12, servers)];
        Observation { swarm: "public".to_string(), by: PeerId::random(), models, cut_off: false }
    }

    fn kinds(before: &Observation, after: &Observation) -> Vec<EventKind> {
        compare(before, after).into_iter().map(|happening| happening.kind).collect()
    }

    fn in_state(seen: &ServerObservation, state: ServerState) -> ServerObservation {
        let mut changed = seen.clone();
        changed.announcement.state = state;
        changed
    }

    #[test]
    fn nothing_happens_while_nothing_changes() {
        let (a, b) = (server("a", 0, 6), silent(server("b", 6, 12)));
        let before = look(&[&a, &b]);
        let mut busier = a.clone();
        busier.announcement.load.sessions += 1;
        busier.announcement.sequence += 1;
        assert!(compare(&before, &look(&[&busier, &b])).is_empty());
    }

    #[test]
    fn a_kill_is_a_loss_and_its_silence_is_told_once() {
        let (a, b) = (server("a", 0, 6), server("b", 6, 12));
        let (before, after) = (look(&[&a, &b]), look(&[&a, &silent(b.clone())]));
        let happened = compare(&before, &after);
        assert_eq!(kinds(&before, &after), [EventKind::Lost, EventKind::Broken]);
        assert_eq!(happened[0].message, "b was lost with blocks 6..12 (refused)");
        assert_eq!(happened[1].blocks, [range(6, 12)]);
        // Its announcement is forgotten later.
        assert!(compare(&after, &look(&[&a])).is_empty());
        // And it may come back.
        assert_eq!(kinds(&after, &before), [EventKind::Returned, EventKind::Whole]);
    }

    #[test]
    fn who_leaves_has_not_been_lost() {
        let (a, b) = (server("a", 0, 12), server("b", 6, 12));
        let leaving = in_state(&b, ServerState::Leaving);
        let gone = silent(leaving.clone());
        assert_eq!(kinds(&look(&[&a, &b]), &look(&[&a, &leaving])), [EventKind::Leaving]);
        assert_eq!(kinds(&look(&[&a, &leaving]), &look(&[&a, &gone])), [EventKind::Left]);
        assert_eq!(kinds(&look(&[&a, &leaving]), &look(&[&a])), [EventKind::Left]);
        // All between two looks.
        assert_eq!(kinds(&look(&[&a, &b]), &look(&[&a, &gone])), [EventKind::Left]);
        assert!(kinds(&look(&[&a, &gone]), &look(&[&a])).is_empty());
        // Whoever looks for the first time never saw it live.
        assert!(kinds(&look(&[&a]), &look(&[&a, &gone])).is_empty());
    }

    #[test]
    fn a_join_is_seen_from_the_announcement_to_the_first_session() {
        let a = server("a", 0, 6);
        let b = server("b", 6, 12);
        let joining = in_state(&b, ServerState::Joining);
        assert_eq!(kinds(&look(&[&a]), &look(&[&a, &joining])), [EventKind::Joined]);
        assert_eq!(kinds(&look(&[&a, &joining]), &look(&[&a, &b])), [EventKind::Serving, EventKind::Whole]);
    }

    #[test]
    fn a_move_names_both_ranges() {
        let a = server("a", 0, 6);
        let mut moved = a.clone();
        moved.announcement.blocks = range(6, 12);
        moved.announcement.state = ServerState::Joining;
        let happened = compare(&look(&[&a]), &look(&[&moved]));
        assert_eq!(happened[0].kind, EventKind::Moved);
        assert_eq!(happened[0].message, "a moves from blocks 0..6 to 6..12");
    }

    #[test]
    fn a_restart_between_two_looks_is_told() {
        let a = server("a", 0, 12);
        let mut again = a.clone();
        again.announcement.instance += 1;
        assert_eq!(kinds(&look(&[&a]), &look(&[&again])), [EventKind::Returned]);
    }

    #[test]
    fn servers_of_one_name_are_told_apart() {
        let (one, two) = (server("two", 0, 12), server("two", 0, 12));
        let happened = compare(&look(&[&one, &two]), &look(&[&one, &silent(two.clone())]));
        let id = two.announcement.peer.to_string();
        assert_eq!(happened[0].message, format!("two …{} was lost with blocks 0..12 (refused)", &id[id.len() - 8..]));
        assert_eq!(happened[0].server, Some((two.announcement.peer, "two".to_string())));
    }

    #[test]
    fn a_swarm_out_of_reach_is_not_an_empty_one() {
        let (a, b) = (server("a", 0, 6), silent(server("b", 6, 12)));
        let before = look(&[&a, &b]);
        let after = Observation { models: before.unheard(), cut_off: true, ..before.clone() };
        assert_eq!(kinds(&before, &after), [EventKind::Lost]);
        assert!(after.models[0].servers.iter().all(|server| server.condition() == Some(ServerCondition::Silent)));
        // It is told once, however long it lasts, and the end of it as well.
        assert!(compare(&after, &Observation { models: after.unheard(), ..after.clone() }).is_empty());
        assert_eq!(kinds(&after, &before), [EventKind::Returned]);
    }

    #[test]
    fn models_come_and_go() {
        let a = server("a", 0, 12);
        let nothing = Observation { models: vec![], ..look(&[]) };
        let here = look(&[&a]);
        assert_eq!(kinds(&nothing, &here), [EventKind::ModelAppeared, EventKind::Joined, EventKind::Whole]);
        assert_eq!(kinds(&here, &nothing), [EventKind::Lost, EventKind::Broken, EventKind::ModelGone]);
    }
}
