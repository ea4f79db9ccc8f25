//! Where there are no Unix sockets: servers are not visited.

use anyhow::{Result, bail};
use swarm_node::serve::ServeEvent;

use super::{Found, Reply};

pub(crate) struct Control;

impl Control {
    pub(crate) fn start(_name: Option<String>, _model: String) -> (Self, Option<std::io::Error>) {
        (Self, None)
    }

    pub(crate) fn teller(&self) -> impl Fn(&ServeEvent) + Send + Sync + 'static {
        |_| ()
    }

    pub(crate) fn wanted(&self) -> impl Future<Output = ()> + 'static {
        std::future::pending()
    }

    pub(crate) async fn finish(self, _error: Option<String>) {
        std::future::ready(()).await;
    }
}

pub(crate) async fn find() -> Vec<Found> {
    std::future::ready(Vec::new()).await
}

pub(crate) async fn drain(_found: &Found, _tell: impl Fn(&Reply)) -> Result<()> {
    std::future::ready(()).await;
    bail!("servers can be told to leave on Unix systems only; end this one with Ctrl-C")
}
