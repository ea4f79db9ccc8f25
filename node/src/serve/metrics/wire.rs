//! Bytes of messages, by what their stream is for.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;
use swarm_protocol::p2p::ByteCount;

/// Bytes that come and go.
#[derive(Debug, Clone, Default)]
pub(in crate::serve) struct Way {
    pub(in crate::serve) into: ByteCount,
    pub(in crate::serve) out: ByteCount,
}

/// Bytes of messages, headers included, without what encryption and TCP add.
#[derive(Debug, Clone, Default)]
pub(in crate::serve) struct Wire {
    /// Between a session's owner and this server.
    pub(in crate::serve) session: Way,
    /// Between this server and the ones before and behind it.
    pub(in crate::serve) link: Way,
    /// KV caches on their way to another server.
    pub(in crate::serve) hand_over: Way,
    /// Embedding, head and sampling for clients without weights.
    pub(in crate::serve) edges: Way,
}

impl Collector for Wire {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Bytes of messages by what their stream is for, without what encryption and TCP add";
        let mut family = encoder.encode_descriptor("wire", help, Some(&Unit::Bytes), MetricType::Counter)?;
        let kinds =
            [("session", &self.session), ("link", &self.link), ("hand_over", &self.hand_over), ("edges", &self.edges)];
        for (kind, way) in kinds {
            for (direction, count) in [("in", &way.into), ("out", &way.out)] {
                let labels = [("kind", kind), ("direction", direction)];
                ConstCounter::new(count.get()).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
