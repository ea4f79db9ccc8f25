//! A trace made by hand: three hops of sixteen blocks, the second one slow and lost half-way.

use std::time::Duration;

use swarm_client::HopInfo;
use swarm_client::trace::{ChromeWriter, TraceRecord};
use swarm_protocol::block::BlockRange;
use swarm_protocol::{Keypair, PeerId};

const ROUND_TRIP: Duration = Duration::from_micros(9_000);
const EMBEDDING: Duration = Duration::from_micros(120);
const SAMPLING: Duration = Duration::from_micros(1_900);
const CHUNK: u32 = 128;

/// One row on each hop; a chunk takes twelve times that.
const COMPUTE: [Duration; 3] =
    [Duration::from_micros(9_300), Duration::from_micros(17_400), Duration::from_micros(8_800)];

fn hop(name: u8, start: u32) -> HopInfo {
    let secret = Keypair::ed25519_from_bytes([name; 32]).unwrap();
    let blocks = BlockRange::new(start, start + 16).unwrap();
    HopInfo { peer: PeerId::from(secret.public()), blocks, bytes_in: 4352, bytes_out: 8192 }
}

/// Writes records as time goes on.
struct Script {
    writer: ChromeWriter<Vec<u8>>,
    now: Duration,
    hops: Vec<HopInfo>,
    free: [Duration; 3],
}

impl Script {
    fn write(&mut self, record: TraceRecord) {
        self.writer.write(record).unwrap();
    }

    fn route(&mut self) {
        let (hops, at) = (self.hops.clone(), self.now);
        self.write(TraceRecord::Route { hops, at });
    }

    /// Sends a step that is computed `times` as long as one row is; gives when its output arrives.
    fn step(&mut self, position: u32, rows: u32, times: u32) -> Duration {
        self.now += EMBEDDING;
        let at = self.now;
        self.write(TraceRecord::Step { position, rows, at, embedding: EMBEDDING });
        let mut arrival = at + ROUND_TRIP / 2;
        for (hop, compute) in COMPUTE.into_iter().enumerate() {
            // Others use the servers as well.
            let jitter = Duration::from_micros(u64::from(position * 7919 % 13) * 130 * (hop as u64 + 1));
            let busy = if position.is_multiple_of(9) { Duration::from_millis(6) } else { Duration::ZERO };
            let start = self.free[hop].max(arrival + busy);
            let (queue, compute) = (start - arrival, (compute + jitter) * times);
            self.free[hop] = start + compute;
            let HopInfo { peer, blocks, .. } = self.hops[hop].clone();
            let acknowledged = self.free[hop] + ROUND_TRIP / 2;
            self.write(TraceRecord::Hop {
                peer,
                blocks,
                position,
                rows,
                queue,
                compute,
                acknowledged,
                rtt: ROUND_TRIP,
            });
            arrival = self.free[hop] + ROUND_TRIP / 2;
        }
        arrival
    }

    fn token(&mut self, arrived: Duration, position: u32) {
        self.write(TraceRecord::Output { position, at: arrived });
        self.now = arrived + SAMPLING;
        self.write(TraceRecord::Token { id: position, at: self.now, sampling: SAMPLING });
    }

    fn lose_the_second(&mut self) {
        let took = Duration::from_millis(38);
        self.now += took;
        let (lost, reason) = (self.hops[1].peer, "its stream closed".to_string());
        self.write(TraceRecord::Reroute { lost, reason, at: self.now, took });
        self.hops[1] = hop(4, 16);
        self.route();
    }
}

/// The file of a text of so many tokens.
pub(super) fn trace(tokens: u32) -> String {
    let hops = vec![hop(1, 0), hop(2, 16), hop(3, 32)];
    let writer = ChromeWriter::new(Vec::new()).unwrap();
    let mut script = Script { writer, now: Duration::ZERO, hops, free: [Duration::ZERO; 3] };
    script.route();
    let mut arrived = Duration::ZERO;
    for chunk in 0..4 {
        arrived = script.step(chunk * CHUNK, CHUNK, 12);
    }
    script.token(arrived, 3 * CHUNK);
    for token in 1..tokens {
        if token == tokens / 2 {
            script.lose_the_second();
        }
        let position = 4 * CHUNK + token;
        arrived = script.step(position, 1, 1);
        script.token(arrived, position);
    }
    String::from_utf8(script.writer.finish().unwrap()).unwrap()
}
