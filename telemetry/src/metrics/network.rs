//! What a member sees of its swarm.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What a member sees of its swarm; clones are the same gauges.
#[derive(Debug, Clone, Default)]
pub struct NetworkGauges {
    connected: Gauge,
    known: Gauge,
    records: Gauge,
}

impl NetworkGauges {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("network_connected_peers", "Peers this one is connected to", self.connected.clone());
        registry.register("network_known_peers", "Members of the DHT in this one's routing table", self.known.clone());
        registry.register("network_records", "Statements of servers that are kept for the DHT", self.records.clone());
    }

    /// Sets what is seen now.
    pub fn set(&self, connected: usize, known: usize, records: usize) {
        self.connected.set(connected as i64);
        self.known.set(known as i64);
        self.records.set(records as i64);
    }
}
