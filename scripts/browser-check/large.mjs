// An overview of 200 servers of a model of 126 blocks: what the page must bear. The same each time.

const SERVERS = 200;
const BLOCKS = 126;
const STATES = ["serving", "serving", "serving", "serving", "serving", "serving", "serving", "joining", "leaving", "silent", "announced"];

export function largeSwarm() {
  let seed = 7;
  const below = (most) => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return Math.floor((seed / 2147483648) * most);
  };
  const servers = Array.from({ length: SERVERS }, (_, number) => server(number, below));
  const serving = servers.filter(({ state }) => state === "serving" || state === "announced");
  const hosts = (block) => serving.filter(({ blocks: [start, end] }) => start <= block && block < end);
  const blocks = Array.from({ length: BLOCKS }, (_, block) => hosts(block));
  const tokens_per_second = blocks.map((hosts) => Math.round(10 * hosts.reduce((sum, host) => sum + host.tokens_per_second, 0)) / 10);
  const least = Math.min(...tokens_per_second);
  const start = tokens_per_second.indexOf(least);
  const follows = (from, to) => to.blocks[0] <= from.blocks[1] && from.blocks[1] < to.blocks[1];
  const round_trips = serving.flatMap((from) => serving.filter((to) => follows(from, to)).slice(0, 8).map((to) => ({ from: from.peer_id, to: to.peer_id, rtt_ms: 1 + below(400) / 10 })));
  const model = {
    model_id: "0".repeat(64), name: "a model of 126 blocks", blocks: BLOCKS, known_servers: SERVERS, missing: [],
    replicas: blocks.map((hosts) => hosts.length), tokens_per_second,
    bottleneck: { blocks: [start, start + 1], replicas: blocks[start].length, tokens_per_second: least },
    classes: [], wire: { hidden: 16384, element: "bf16", exact_bytes: 32768, int8_bytes: 17408 }, servers, round_trips,
  };
  return { schema: 1, swarm: "public", at_unix_ms: Date.now(), seen_by: { peer_id: "somebody", version: "0.1.0" }, models: [model], alarms: [] };
}

function server(number, below) {
  const length = 6 + below(20);
  // Two rows of servers that leave no hole, and others at random.
  const start = number < 42 ? (number % 21) * 6 : below(BLOCKS - length);
  const state = number < 42 ? "serving" : STATES[below(STATES.length)];
  const answers = state !== "silent" && state !== "announced";
  return {
    peer_id: `peer-${number}`, name: `server-${number}`, blocks: [start, Math.min(BLOCKS, start + length)], state, silence: null, addresses: [],
    rtt_ms: answers ? 1 + below(800) / 10 : null, uptime_seconds: answers ? below(900000) : null, numeric_class: "bf16/fma/x86_64-linux", weight_format: "bf16", kv_bits: null,
    decode_us_per_block: 900, prefill_ns_per_token_block: 70000, tokens_per_second: 20 + below(400) / 10, queue_us: below(4000), sessions: below(6), free_tokens: below(16384), total_tokens: 16384,
    version: "0.1.0", edges: null,
  };
}
