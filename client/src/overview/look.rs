//! Looking at a swarm: its directory, its announcements, and what servers answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, join_all};
use futures::stream;
use swarm_protocol::PeerId;
use swarm_protocol::announcement::{Announcement, DirectoryEntry};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::ModelId;
use swarm_protocol::p2p::{Network, Probe, probe};
use swarm_protocol::wire::ServerInfo;

use super::observation::{Answer, ModelObservation, ModelShape, Observation, ServerObservation};
use crate::finder;

/// How long a server may take to answer before it is shown as silent.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Servers of a model that are asked directly in one look; the rest is shown as announced.
const MOST_PROBES: usize = 256;

/// Models that are looked up in one look; a directory with more is shown in part.
const MOST_MODELS: usize = 64;

/// Models looked up at the same time.
const MODELS_AT_ONCE: usize = 4;

/// What a server that looks at its own swarm says of itself, since it cannot dial itself, and the width of its model.
/// `None` while it serves nothing.
pub type OwnInfo = Arc<dyn Fn() -> Option<(ServerInfo, ModelShape)> + Send + Sync>;

/// The one model that somebody cares for.
#[derive(Debug, Clone)]
pub struct OnlyModel {
    /// What its servers share.
    pub id: ModelId,
    /// Its name for people.
    pub name: String,
    /// All its blocks.
    pub blocks: BlockRange,
}

/// Looks at a swarm through one member's network.
#[derive(Clone)]
pub struct Lookout {
    network: Network,
    only: Option<OnlyModel>,
    shapes: HashMap<ModelId, ModelShape>,
    itself: Option<OwnInfo>,
}

impl Lookout {
    /// Looks at all models.
    pub fn new(network: Network) -> Self {
        Self { network, only: None, shapes: HashMap::new(), itself: None }
    }

    /// Looks at that model only, whether it lives in the swarm or not.
    pub fn only(self, model: OnlyModel) -> Self {
        Self { only: Some(model), ..self }
    }

    /// Knows the width of that model.
    pub fn knowing(mut self, model: ModelId, shape: ModelShape) -> Self {
        self.shapes.insert(model, shape);
        self
    }

    /// Looks as the server that says this of itself.
    pub fn as_server(self, itself: OwnInfo) -> Self {
        Self { itself: Some(itself), ..self }
    }

    /// Looks. The servers of `before`, which was seen last, are asked too: what holders of records answer may be a sample.
    /// If no member answers, what `before` saw is given again, with its servers silent.
    pub async fn look(&self, before: Option<&Observation>) -> Observation {
        let asked = self.models(before).await;
        let looks = asked.into_iter().map(|model| self.model(model));
        let seen: Vec<Option<ModelObservation>> = stream::iter(looks).buffered(MODELS_AT_ONCE).collect().await;
        let models: Vec<ModelObservation> = seen.into_iter().flatten().collect();
        let cut_off = !heard(&models) && self.network.census().await.connected_peers == 0;
        let models = match before {
            Some(before) if cut_off => before.unheard(),
            _ => models,
        };
        Observation { swarm: self.network.swarm().as_str().to_string(), by: self.network.peer_id(), models, cut_off }
    }

    async fn models(&self, before: Option<&Observation>) -> Vec<Asked> {
        let last = |id: ModelId| before.into_iter().flat_map(|seen| &seen.models).find(move |model| model.id == id);
        let cut_off = before.is_some_and(|seen| seen.cut_off);
        let answered = |id: ModelId| last(id).map_or_else(Vec::new, |model| asked_again(model, cut_off));
        if let Some(OnlyModel { id, name, blocks }) = self.only.clone() {
            return vec![Asked { id, name, blocks, listed: true, known: answered(id) }];
        }
        let directory = finder::models(&self.network).await;
        let mut asked: BTreeMap<ModelId, Asked> = BTreeMap::new();
        for DirectoryEntry { model: id, name, blocks, .. } in directory.into_values() {
            // Statements with a number of blocks that no model has do not come this far.
            if let Ok(blocks) = BlockRange::new(0, blocks) {
                asked.insert(id, Asked { id, name, blocks, listed: true, known: answered(id) });
            }
        }
        for model in before.into_iter().flat_map(|seen| &seen.models) {
            let ModelObservation { id, name, blocks, .. } = model.clone();
            let known = asked_again(model, cut_off);
            asked.entry(id).or_insert(Asked { id, name, blocks, listed: false, known });
        }
        let mut asked: Vec<Asked> = asked.into_values().collect();
        // Names of models that nobody serves, as many as somebody likes, push none off that was seen to be served.
        asked.sort_by_key(|model| (!self.shapes.contains_key(&model.id), model.known.is_empty(), model.id));
        asked.truncate(MOST_MODELS);
        asked
    }

    /// One model; `None` if the directory does not name it any more and none of its servers answers.
    async fn model(&self, asked: Asked) -> Option<ModelObservation> {
        let Asked { id, name, blocks, listed, known } = asked;
        let view = finder::look_up(&self.network, id, blocks).await;
        let mut servers: HashMap<PeerId, (Announcement, bool)> = HashMap::new();
        for announcement in known {
            servers.insert(announcement.peer, (announcement, false));
        }
        for announcement in view.all().cloned() {
            servers.insert(announcement.peer, (announcement, true));
        }
        let own = self.itself.as_ref().and_then(|itself| itself()).filter(|(own, _)| own.announcement.model == id);
        if let Some((own, _)) = &own {
            servers.insert(own.announcement.peer, (own.announcement.clone(), true));
        }
        let mut servers: Vec<(Announcement, bool)> = servers.into_values().collect();
        // The same ones are asked each time.
        servers.sort_by_key(|(announcement, _)| announcement.peer);
        let asked = servers.into_iter().enumerate().map(|(number, (announcement, announced))| {
            if announcement.peer == self.network.peer_id() {
                let seen = match own.clone() {
                    Some((own, _)) => of_itself(own),
                    None => ServerObservation { announcement, answer: Answer::NotAsked },
                };
                return Either::Left(std::future::ready(Some((seen, announced))));
            }
            Either::Right(async move {
                if number >= MOST_PROBES {
                    return Some((ServerObservation { announcement, answer: Answer::NotAsked }, announced));
                }
                self.ask(id, announcement).await.map(|seen| (seen, announced))
            })
        });
        let seen: Vec<(ServerObservation, bool)> = join_all(asked).await.into_iter().flatten().collect();
        // Whoever is not announced is there only if it says so itself.
        let there = |(seen, announced): (ServerObservation, bool)| {
            let answered = matches!(seen.answer, Answer::Given { .. });
            (announced || answered).then_some(seen)
        };
        let servers: Vec<ServerObservation> = seen.into_iter().filter_map(there).collect();
        if !listed && servers.iter().all(|server| server.condition().is_none_or(|state| !state.serves())) {
            return None;
        }
        let shape = own.map(|(_, shape)| shape).or_else(|| self.shapes.get(&id).copied());
        Some(ModelObservation { id, name, blocks, known_servers: view.estimated_servers(), shape, servers })
    }

    /// `None` if it now serves another model.
    async fn ask(&self, model: ModelId, announcement: Announcement) -> Option<ServerObservation> {
        match probe(&self.network, announcement.peer, &announcement.addresses, PROBE_TIMEOUT).await {
            Ok(Probe { info, .. }) if info.announcement.model != model => None,
            Ok(Probe { info, rtt }) => {
                let ServerInfo { announcement, uptime_seconds, edges, .. } = info;
                Some(ServerObservation { announcement, answer: Answer::Given { rtt, uptime_seconds, edges } })
            }
            Err(error) => Some(ServerObservation { announcement, answer: Answer::Silent { reason: error.reason() } }),
        }
    }
}

/// A model that is to be looked up.
struct Asked {
    id: ModelId,
    name: String,
    blocks: BlockRange,
    /// Whether the directory names it, or somebody has asked for it.
    listed: bool,
    /// Servers that were seen last time, and are asked again.
    known: Vec<Announcement>,
}

/// Whether anybody has said anything of these models.
fn heard(models: &[ModelObservation]) -> bool {
    models.iter().flat_map(|model| &model.servers).any(|server| !matches!(server.answer, Answer::Silent { .. }))
}

/// Servers that answered last time; if nobody did, all of them: they may be the way back.
fn asked_again(model: &ModelObservation, cut_off: bool) -> Vec<Announcement> {
    let again = |server: &&ServerObservation| cut_off || matches!(server.answer, Answer::Given { .. });
    model.servers.iter().filter(again).map(|server| server.announcement.clone()).collect()
}

fn of_itself(own: ServerInfo) -> ServerObservation {
    let ServerInfo { announcement, uptime_seconds, edges, .. } = own;
    ServerObservation { announcement, answer: Answer::Given { rtt: Duration::ZERO, uptime_seconds, edges } }
}
