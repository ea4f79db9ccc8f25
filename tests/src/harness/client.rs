//! A client inside the test: the library as its users hold it.

use std::time::Duration;

use swarm_client::finder::{ProbeError, probe};
use swarm_client::{
    ClientConfig, GenerationConfig, GenerationEvent, HopInfo, Model, SessionError, Summary, Swarm, TextSession,
};
use swarm_model::{ModelSpec, SamplingConfig};
use swarm_protocol::block::BlockIndex;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::p2p::{BootstrapPeer, NetworkConfig};
use swarm_protocol::wire::ServerInfo;
use swarm_protocol::{Multiaddr, PeerId};

use super::swarm::Server;
use super::{DEADLINE, TestSwarm};

/// How long a server may take to describe itself.
const PROBE: Duration = Duration::from_secs(5);

/// A member of the swarm with the client's part of a model.
pub struct Client {
    /// The membership.
    pub swarm: Swarm,
    /// The model.
    pub model: Model,
}

/// A text that a swarm has generated, with everything that happened.
#[derive(Debug, Clone)]
pub struct Told {
    /// The end of it.
    pub summary: Summary,
    /// Every route it took.
    pub routes: Vec<Vec<HopInfo>>,
    /// The servers it lost, and why.
    pub lost: Vec<(PeerId, String)>,
}

impl Client {
    /// A client of the demo model.
    pub async fn of(swarm: &TestSwarm) -> Self {
        Self::with(swarm, &ModelSpec::Demo, None, ClientConfig::default()).await
    }

    /// A client of `model`.
    pub async fn with(
        swarm: &TestSwarm,
        model: &ModelSpec,
        format: Option<WeightFormat>,
        config: ClientConfig,
    ) -> Self {
        Self::through(swarm.entry(), model, format, config).await
    }

    /// The same by way of that entry point.
    pub async fn through(
        entry: BootstrapPeer,
        model: &ModelSpec,
        format: Option<WeightFormat>,
        config: ClientConfig,
    ) -> Self {
        let network = NetworkConfig::client("public".parse().expect("a name"), vec![entry]);
        let swarm = Swarm::join(network, config).await.expect("the swarm lets a client in");
        let model = swarm.open_model(model, format).await.expect("the client's part of the model");
        Self { swarm, model }
    }

    /// What `server` says of itself.
    ///
    /// # Errors
    /// [`ProbeError`] if it does not answer.
    pub async fn info(&self, server: &Server) -> Result<ServerInfo, ProbeError> {
        self.info_of(server.peer, &server.address).await
    }

    /// What the server `peer` at `address` says of itself.
    ///
    /// # Errors
    /// [`ProbeError`] if it does not answer.
    pub async fn info_of(&self, peer: PeerId, address: &Multiaddr) -> Result<ServerInfo, ProbeError> {
        let probed = probe(self.swarm.network(), peer, std::slice::from_ref(address), PROBE).await;
        probed.map(|probe| probe.info)
    }

    /// Generates a text.
    ///
    /// # Errors
    /// [`SessionError`] of the session.
    pub async fn tell(&self, prompt: &str, sampling: SamplingConfig, most: usize) -> Result<Told, SessionError> {
        self.tell_with(prompt, sampling, most, async |_, _| {}).await
    }

    /// Generates a text; `meanwhile` is called with the number of tokens so far and the route: at first with none, before
    /// anything is computed, then after each token and before the next is asked for.
    ///
    /// # Errors
    /// [`SessionError`] of the session.
    ///
    /// # Panics
    /// If the text takes longer than any of these tests may.
    pub async fn tell_with(
        &self,
        prompt: &str,
        sampling: SamplingConfig,
        most: usize,
        meanwhile: impl AsyncFnMut(usize, &[HopInfo]),
    ) -> Result<Told, SessionError> {
        let config = GenerationConfig { max_tokens: most, sampling, ..Default::default() };
        self.tell_as(prompt, config, meanwhile).await
    }

    /// The same with all options.
    ///
    /// # Errors
    /// [`SessionError`] of the session.
    ///
    /// # Panics
    /// If the text takes longer than any of these tests may.
    pub async fn tell_as(
        &self,
        prompt: &str,
        config: GenerationConfig,
        meanwhile: impl AsyncFnMut(usize, &[HopInfo]),
    ) -> Result<Told, SessionError> {
        let ids = self.model.encode(prompt)?;
        let mut session = self.model.text_session_for(&ids, ids.len() + config.max_tokens).await?;
        let telling = tell_in(&mut session, &ids, config, meanwhile);
        let told = tokio::time::timeout(2 * DEADLINE, telling).await;
        told.unwrap_or_else(|_| panic!("the text does not come to an end: {prompt:?}"))
    }
}

/// Generates one text in a session and checks that its events tell the same story as its end.
///
/// # Errors
/// [`SessionError`] of the session.
///
/// # Panics
/// If they do not.
pub async fn tell_in(
    session: &mut TextSession,
    ids: &[u32],
    config: GenerationConfig,
    mut meanwhile: impl AsyncFnMut(usize, &[HopInfo]),
) -> Result<Told, SessionError> {
    let route = session.route();
    meanwhile(0, &route).await;
    let mut generation = session.generate(ids, config)?;
    let (mut tokens, mut streamed) = (Vec::new(), String::new());
    let (mut routes, mut lost) = (vec![route], Vec::new());
    loop {
        match generation.next().await?.expect("an event, since the end has not come") {
            GenerationEvent::Route { hops, .. } => routes.push(hops),
            GenerationEvent::Trace(_) => {}
            GenerationEvent::Reroute { lost: peer, reason, .. } => lost.push((peer, reason)),
            GenerationEvent::Token { id, text, .. } => {
                tokens.push(id);
                streamed.push_str(&text);
                meanwhile(tokens.len(), routes.last().map_or(&[], Vec::as_slice)).await;
            }
            GenerationEvent::Done(summary) => {
                assert!(generation.next().await?.is_none(), "something came after the end");
                assert_eq!(summary.tokens, tokens, "the stream and the end tell different ids");
                assert_eq!(summary.text, streamed + &summary.tail, "the stream and the end tell different texts");
                assert_eq!(summary.reroutes, lost.len(), "the stream and the end count differently");
                // What a token takes on a link may have changed meanwhile.
                let hops = |route: &[HopInfo]| route.iter().map(|hop| (hop.peer, hop.blocks)).collect::<Vec<_>>();
                let last = routes.last().map(|route| hops(route));
                assert_eq!(last, Some(hops(&summary.route)), "the last route is not the one at the end");
                return Ok(Told { summary, routes, lost });
            }
        }
    }
}

/// The server of `route` that hosts `block`.
pub fn host(route: &[HopInfo], block: u32) -> PeerId {
    let hop = route.iter().find(|hop| hop.blocks.contains(BlockIndex(block)));
    hop.expect("a hop for every block").peer
}
