//! Bringing the stream to the first hop up to speed while there is nothing to send on it.

use std::time::Instant;

use swarm_protocol::p2p::{FrameWriter, StreamError};
use swarm_protocol::warm_up::WarmUp;
use swarm_protocol::wire::SessionRequest;
use tokio::sync::mpsc;

use super::link::Asked;

/// The ping that follows a piece: its answer says that the piece has arrived. Others count from 1.
pub(super) const WARM_PING: u64 = 0;

/// What is to be sent, and what says that it has arrived.
pub(super) struct Warming {
    pub(super) plan: WarmUp,
    /// When the answers to [`WARM_PING`] came.
    pub(super) answered: mpsc::Receiver<Instant>,
}

impl Warming {
    /// Sends the pieces one by one, until the connection is warm or a request with rows comes, which does the same.
    /// Other requests go between the pieces.
    ///
    /// # Errors
    /// If the stream breaks.
    pub(super) async fn run(
        mut self,
        writer: &mut FrameWriter<SessionRequest>,
        requests: &mut mpsc::Receiver<Asked>,
    ) -> Result<(), StreamError> {
        let mut taken = None;
        while let Some(header) = self.plan.next(taken) {
            let asked = Instant::now();
            writer.send(&SessionRequest::Warm(header), &vec![0; header.payload_bytes().unwrap_or(0)]).await?;
            writer.send(&SessionRequest::Ping { nonce: WARM_PING }, &[]).await?;
            taken = loop {
                tokio::select! {
                    request = requests.recv() => {
                        // A hop that was given up needs nothing more.
                        let Some((request, rows)) = request.filter(|_| !requests.is_closed()) else { return Ok(()) };
                        writer.send(&request, &rows).await?;
                        if !rows.is_empty() {
                            return Ok(());
                        }
                    }
                    Some(at) = self.answered.recv() => break Some(at.saturating_duration_since(asked)),
                }
            };
        }
        Ok(())
    }
}
