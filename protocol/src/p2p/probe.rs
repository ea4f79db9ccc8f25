//! Asking a server directly: what it serves, and how far away it is.

use std::time::{Duration, Instant};

use thiserror::Error;

use super::{FrameReader, FrameWriter, Network, OpenError, StreamError, StreamKind};
use crate::wire::{InfoReply, InfoRequest, ServerInfo};
use crate::{Multiaddr, PeerId};

/// Pings of one probe; the fastest counts, since everything else is noise on top of the distance.
const PINGS: u64 = 3;

/// Why a probe gave nothing.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// No stream to the peer.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream broke.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The peer hung up.
    #[error("it ended the stream without an answer")]
    Ended,
    /// The peer answered something else than was asked.
    #[error("it answered something else than was asked")]
    WrongAnswer,
    /// The peer describes another peer, or contradicts itself.
    #[error("what it says of itself does not hold together")]
    Inconsistent,
    /// It took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

impl ProbeError {
    /// What happened, without naming the peer again.
    pub fn reason(&self) -> String {
        match self {
            Self::Open(OpenError::Unreachable { reason, .. }) => format!("it cannot be reached: {reason}"),
            other => other.to_string(),
        }
    }
}

/// A server's word about itself and the round-trip time to it.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Its description.
    pub info: ServerInfo,
    /// The fastest of a few pings.
    pub rtt: Duration,
}

/// Probes the server `peer`.
///
/// # Errors
/// [`ProbeError`] if it cannot be reached, takes longer than `limit`, or does not keep to the protocol.
pub async fn probe(
    network: &Network,
    peer: PeerId,
    addresses: &[Multiaddr],
    limit: Duration,
) -> Result<Probe, ProbeError> {
    let probed = tokio::time::timeout(limit, probe_without_limit(network, peer, addresses)).await;
    probed.unwrap_or(Err(ProbeError::TimedOut(limit)))
}

async fn probe_without_limit(network: &Network, peer: PeerId, addresses: &[Multiaddr]) -> Result<Probe, ProbeError> {
    let stream = network.open(peer, addresses, StreamKind::Info).await?;
    let (mut reader, mut writer) = stream.into_frames::<InfoReply, InfoRequest>(0);
    let InfoReply::Server(info) = ask(&mut reader, &mut writer, &InfoRequest::Describe).await? else {
        return Err(ProbeError::WrongAnswer);
    };
    let consistent = info.announcement.peer == peer
        && info.announcement.within_bounds()
        && info.digests.len() == info.announcement.blocks.len() as usize;
    if !consistent {
        return Err(ProbeError::Inconsistent);
    }
    let rtt = ping(&mut reader, &mut writer).await?;
    // A server that does not see the end of the stream sees its reset.
    let _ = writer.close().await;
    Ok(Probe { info: *info, rtt })
}

/// The round-trip time to `peer`: the fastest of a few pings.
///
/// # Errors
/// [`ProbeError`] if it cannot be reached, takes longer than `limit`, or does not keep to the protocol.
pub async fn round_trip(
    network: &Network,
    peer: PeerId,
    addresses: &[Multiaddr],
    limit: Duration,
) -> Result<Duration, ProbeError> {
    let asked = async {
        let stream = network.open(peer, addresses, StreamKind::Info).await?;
        let (mut reader, mut writer) = stream.into_frames::<InfoReply, InfoRequest>(0);
        let rtt = ping(&mut reader, &mut writer).await?;
        let _ = writer.close().await;
        Ok(rtt)
    };
    tokio::time::timeout(limit, asked).await.unwrap_or(Err(ProbeError::TimedOut(limit)))
}

async fn ping(
    reader: &mut FrameReader<InfoReply>,
    writer: &mut FrameWriter<InfoRequest>,
) -> Result<Duration, ProbeError> {
    let mut rtt = Duration::MAX;
    for nonce in 0..PINGS {
        let sent = Instant::now();
        let reply = ask(reader, writer, &InfoRequest::Ping { nonce }).await?;
        if reply != (InfoReply::Pong { nonce }) {
            return Err(ProbeError::WrongAnswer);
        }
        rtt = rtt.min(sent.elapsed());
    }
    Ok(rtt)
}

async fn ask(
    reader: &mut FrameReader<InfoReply>,
    writer: &mut FrameWriter<InfoRequest>,
    request: &InfoRequest,
) -> Result<InfoReply, ProbeError> {
    writer.send(request, &[]).await?;
    let (reply, _) = reader.next().await?.ok_or(ProbeError::Ended)?;
    Ok(reply)
}
