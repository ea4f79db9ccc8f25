//! `swarm-node serve --http`: what a server shows of itself and its swarm.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::json;
use swarm_api::Views;
use swarm_client::overview::{Lookout, ModelShape, OwnInfo, Watcher};
use swarm_node::serve::{OwnWord, ServeEvent, ServerMetrics};
use swarm_protocol::p2p::Network;
use swarm_telemetry::http::{self, Bounds, Router};
use swarm_telemetry::metrics;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::output::Printer;

/// How long answers that are under way may take when the server has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A server's HTTP, from its start to its end.
pub(crate) struct ServerPage {
    told: Arc<Told>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What the server has told of itself.
struct Told {
    network: watch::Sender<Option<Network>>,
    now: Mutex<Now>,
}

struct Now {
    /// What keeps it from serving.
    not_ready: Option<&'static str>,
    word: Option<OwnWord>,
}

impl ServerPage {
    /// Listens on `address`; answers as soon as the server has a network.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub(crate) async fn start(address: SocketAddr, printer: Printer, metrics: &ServerMetrics) -> Result<Self> {
        let listener = http::listen(address).await.map_err(|error| anyhow!(error))?;
        let url = format!("http://{}", listener.local_addr()?);
        printer.result(&json!({ "event": "http", "url": url }), format_args!("http      {url}"));
        let now = Mutex::new(Now { not_ready: Some("it is starting"), word: None });
        let told = Arc::new(Told { network: watch::Sender::new(None), now });
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(answer(listener, told.clone(), metrics.clone(), stopped));
        Ok(Self { told, stop, task })
    }

    /// Takes in what the server tells.
    pub(crate) fn teller(&self) -> impl Fn(&ServeEvent) + Send + Sync + 'static {
        let told = self.told.clone();
        move |event| told.take(event)
    }

    /// The server has ended: lets answers that are under way come to their end.
    pub(crate) async fn finish(mut self) {
        self.stop.send_replace(true);
        if timeout(LAST_WORDS, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Told {
    fn take(&self, event: &ServeEvent) {
        let now = |not_ready, word: Option<OwnWord>| {
            let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
            now.not_ready = not_ready;
            now.word = word.or_else(|| now.word.take());
        };
        match event {
            ServeEvent::Listening { network, .. } => {
                self.network.send_replace(Some(Network::clone(network)));
            }
            ServeEvent::Chosen { .. } => now(Some("it loads its blocks"), None),
            ServeEvent::Loading(_) => {}
            ServeEvent::Ready { word, .. } => now(None, Some(word.clone())),
            ServeEvent::Moving { .. } => now(Some("it moves to other blocks"), None),
            ServeEvent::Leaving { .. } => now(Some("it is leaving"), None),
        }
    }

    fn ready(&self) -> std::result::Result<(), &'static str> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).not_ready.map_or(Ok(()), Err)
    }

    fn word(&self) -> Option<OwnWord> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).word.clone()
    }
}

/// Answers until told to stop: whether it lives and is ready at once, what the swarm looks like as soon as it has a network.
async fn answer(listener: TcpListener, told: Arc<Told>, metrics: ServerMetrics, mut stopped: watch::Receiver<bool>) {
    let ready = told.clone();
    let watched = http::probes(move || ready.ready().map_err(str::to_string)).merge(metrics_route(metrics));
    let early = http::starting(watched.clone());
    let whole: OnceLock<Router> = OnceLock::new();
    let end = async {
        let mut network = told.network.subscribe();
        let network = tokio::select! {
            network = network.wait_for(Option::is_some) => network.ok().and_then(|network| network.clone()),
            // Whoever could stop it is gone as well if this fails.
            _ = stopped.wait_for(|stopped| *stopped) => None,
        };
        let Some(network) = network else {
            return;
        };
        let itself: OwnInfo = {
            let told = told.clone();
            Arc::new(move || {
                let word = told.word()?;
                Some((word.info()?, ModelShape { hidden: word.hidden, element: word.element }))
            })
        };
        let watcher = Watcher::start(Lookout::new(network).as_server(itself));
        let _ = whole.set(watched.merge(swarm_api::view(watcher.clone(), Views::Map)));
        let _ = stopped.wait_for(|stopped| *stopped).await;
        // Streams of events end with it.
        watcher.stop();
    };
    http::answer(listener, |_| whole.get().unwrap_or(&early).clone(), Bounds::default(), end).await;
}

/// `/metrics`: what the server counts.
fn metrics_route(server: ServerMetrics) -> Router {
    let mut registry = metrics::registry("swarm-node serve");
    server.register(&mut registry);
    let registry = Arc::new(registry);
    http::metrics(move || {
        let (registry, server) = (registry.clone(), server.clone());
        async move {
            server.refresh().await;
            metrics::text(&registry)
        }
    })
}
