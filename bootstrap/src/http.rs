//! `--http`: what whoever watches an entry point asks: `/metrics`, `/health`, `/ready`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::anyhow;
use serde_json::json;
use swarm_protocol::p2p::Network;
use swarm_telemetry::http;
use swarm_telemetry::metrics::{self, NetworkGauges};

use super::args::Args;
use super::output::result;

/// Answers for as long as this value lives.
pub(crate) struct Watched(tokio::task::JoinHandle<()>);

impl Watched {
    /// Listens on `address` and answers from what `network` sees.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub(crate) async fn start(args: &Args, address: SocketAddr, network: &Network) -> anyhow::Result<Self> {
        let listener = http::listen(address).await.map_err(|error| anyhow!(error))?;
        let address = listener.local_addr()?;
        match args.json {
            true => result(json!({ "event": "http", "url": format!("http://{address}") })),
            false => result(format_args!("http      http://{address}")),
        }
        let mut registry = metrics::registry("swarm-bootstrap");
        let gauges = NetworkGauges::default();
        gauges.register(&mut registry);
        let (registry, network) = (Arc::new(registry), network.clone());
        let text = move || {
            let (registry, network, gauges) = (registry.clone(), network.clone(), gauges.clone());
            async move {
                let census = network.census().await;
                gauges.set(census.connected_peers, census.known_peers, census.records);
                metrics::text(&registry)
            }
        };
        // It answers whoever comes, from the moment it listens.
        let router = http::metrics(text).merge(http::probes(|| Ok(())));
        Ok(Self(tokio::spawn(http::serve(listener, router, std::future::pending()))))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.abort();
    }
}
