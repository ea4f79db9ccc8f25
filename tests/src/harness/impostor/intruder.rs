//! A server that goes to other servers' sessions without having been named for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use swarm_protocol::p2p::{Network, StreamKind};
use swarm_protocol::wire::{Incoming, KvHeader, Next, RowEncoding, RowsHeader, SessionReply, SessionRequest, Step};

/// The demo model's width.
const HIDDEN: u32 = 128;

/// What came of an impostor's visits.
#[derive(Debug, Default)]
pub struct Visits {
    sent_away: AtomicUsize,
    welcomed: AtomicUsize,
}

impl Visits {
    /// How many were refused, or hung up on.
    pub fn sent_away(&self) -> usize {
        self.sent_away.load(Ordering::Relaxed)
    }

    /// How many were taken in.
    pub fn welcomed(&self) -> usize {
        self.welcomed.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
pub(super) struct Intruder {
    pub(super) network: Network,
    pub(super) visits: Arc<Visits>,
}

impl Intruder {
    /// Goes to the session `next` over links that it was not named for: older, later, and none that will ever be.
    pub(super) fn visit(&self, next: Next, link: u32) {
        let links = (0..link).chain(link + 1..link + 8).chain([u32::MAX]);
        let visits: Vec<_> = links
            .map(|link| Incoming { session: next.session, link })
            .flat_map(|incoming| [SessionRequest::Feed(incoming), SessionRequest::Import(incoming)])
            .collect();
        let intruder = self.clone();
        tokio::spawn(async move {
            join_all(visits.into_iter().map(|first| intruder.intrude(&next, first))).await;
        });
    }

    async fn intrude(&self, next: &Next, first: SessionRequest) {
        let Ok(stream) = self.network.open(next.peer, &next.addresses, StreamKind::Session).await else {
            return;
        };
        let (mut reader, mut writer) = stream.into_frames::<SessionReply, SessionRequest>(0);
        // Without waiting for an answer.
        let rows = RowsHeader { rows: 4, hidden: HIDDEN, element: RowEncoding::Bf16 };
        let payload = vec![0x41; rows.payload_bytes().expect("a few rows")];
        let step = SessionRequest::Step(Step { epoch: 0, position: 0, rows, wanted_from: 0 });
        let piece = KvHeader { epoch: 0, position: 0, positions: 4, kv_bytes: 0, outputs: rows };
        let _ = writer.send(&first, &[]).await;
        let _ = writer.send(&step, &payload).await;
        let _ = writer.send(&SessionRequest::Kv(piece), &payload).await;
        let outcome = match reader.next().await {
            Ok(Some((SessionReply::Expected, _))) => &self.visits.welcomed,
            _ => &self.visits.sent_away,
        };
        outcome.fetch_add(1, Ordering::Relaxed);
    }
}
