//! A server process, and a client that speaks to it frame by frame.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use swarm_model::{Checkpoint, ModelSpec, Sequence, activations};
use swarm_protocol::activations::{ActivationRows, Rows};
use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::{BootstrapPeer, ByteStream, FrameReader, FrameWriter, Network, NetworkConfig, StreamKind};
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::swarm_name::SwarmName;
use swarm_protocol::wire::{
    Connect, Incoming, InfoReply, InfoRequest, Input, Lane, Next, Open, Output, Refusal, RowEncoding, RowsHeader,
    ServerInfo, SessionReply, SessionRequest, Step, StepError,
};
use swarm_protocol::{Multiaddr, PeerId};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The demo model's width.
pub(crate) const HIDDEN: usize = 128;

/// Bytes of one row.
pub(crate) const ROW: usize = 2 * HIDDEN;

/// The number of the way back to the client.
pub(crate) const OWNER_LINK: u32 = 1000;

/// Larger than any reply to these tests.
pub(crate) const PAYLOAD_LIMIT: usize = 1 << 20;

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// What `future` gives within the deadline.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing came in time")
}

/// Rows of small bf16 numbers for the positions `[position, position + count)`.
pub(crate) fn rows(position: u32, count: u32) -> Vec<u8> {
    let elements = position as usize * HIDDEN..(position + count) as usize * HIDDEN;
    // The upper half of an f32 is its bf16.
    let value = |index: usize| ((index * 37 % 101) as f32 - 50.0) / 100.0;
    elements.flat_map(|index| ((value(index).to_bits() >> 16) as u16).to_le_bytes()).collect()
}

/// How so many rows are announced.
pub(crate) fn header(rows: u32) -> RowsHeader {
    RowsHeader { rows, hidden: HIDDEN as u32, element: RowEncoding::Bf16 }
}

/// What the demo model's blocks make of [`rows`] from position 0 on, computed here.
pub(crate) fn local(range: BlockRange, count: u32) -> Vec<u8> {
    let rows = ActivationRows::of_wire(header(count), rows(0, count)).unwrap();
    local_of(range, &rows).into_bytes()
}

/// The same of any rows.
pub(crate) fn local_of(range: BlockRange, rows: &ActivationRows) -> ActivationRows {
    let count = rows.rows();
    let checkpoint = Checkpoint::open(&ModelSpec::Demo).unwrap();
    let format = checkpoint.native_format();
    let blocks = checkpoint.load_blocks(range, format, &mut |_| {}).unwrap();
    let mut cache = blocks.new_cache(range, count).unwrap();
    let input = activations::from_bytes(format, count, HIDDEN, rows.bytes()).unwrap();
    let sequence = Sequence { cache: &mut cache, rows: count };
    let output = blocks.forward(range, &input, &mut [sequence]).unwrap();
    ActivationRows::of_wire(rows.header(), activations::to_bytes(&output).unwrap()).unwrap()
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) peer: PeerId,
    /// With the peer id.
    pub(crate) address: String,
    pub(crate) model: String,
    pub(crate) blocks: BlockRange,
    /// Kept open: a server that cannot print is no subject here.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Server {
    pub(crate) fn command(args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarm-node"));
        command.args(["serve", "--listen", "/ip4/127.0.0.1/tcp/0", "--json"]).args(args);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Starts a server and waits until it is ready.
    pub(crate) async fn start(args: &[&str]) -> Self {
        let mut child = Self::command(args).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = event(&mut stdout, "listening").await;
        let ready = event(&mut stdout, "ready").await;
        let text = |value: &Value| value.as_str().unwrap().to_string();
        Self {
            child,
            peer: text(&listening["peer_id"]).parse().unwrap(),
            address: text(&listening["address"]),
            model: text(&ready["model_id"]),
            blocks: serde_json::from_value(ready["blocks"].clone()).unwrap(),
            _stdout: stdout,
        }
    }

    /// Sends SIGTERM to this process.
    pub(crate) fn terminate(&self) {
        let id = self.child.id().expect("the server still runs").to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }
}

async fn event(stdout: &mut Lines<BufReader<ChildStdout>>, name: &str) -> Value {
    loop {
        let line = soon(stdout.next_line()).await.unwrap().expect("the server ended");
        let value: Value = serde_json::from_str(&line).expect("one JSON object a line");
        if value["event"] == name {
            return value;
        }
    }
}

/// A member that asks one server.
pub(crate) struct Client {
    pub(crate) network: Network,
    server: PeerId,
    address: Multiaddr,
}

impl Client {
    pub(crate) async fn of(server: &Server) -> Self {
        let BootstrapPeer { peer, address } = server.address.parse().unwrap();
        let (network, _) = Network::start(NetworkConfig::client(SwarmName::default(), Vec::new())).await.unwrap();
        Self { network, server: peer, address }
    }

    pub(crate) async fn stream(&self, kind: StreamKind) -> ByteStream {
        self.network.open(self.server, std::slice::from_ref(&self.address), kind).await.unwrap()
    }

    pub(crate) async fn describe(&self) -> ServerInfo {
        let (mut reader, mut writer) = self.stream(StreamKind::Info).await.into_frames::<InfoReply, InfoRequest>(0);
        writer.send(&InfoRequest::Describe, &[]).await.unwrap();
        match soon(reader.next()).await.unwrap().unwrap().0 {
            InfoReply::Server(info) => *info,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until all KV cache room is free again.
    pub(crate) async fn wait_until_free(&self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let load = self.describe().await.announcement.load;
            if load.free_tokens == load.total_tokens && load.sessions == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{load:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn new_session(&self) -> SessionId {
        SessionId::random(&mut rand::rng())
    }

    /// A request for all the server's blocks.
    pub(crate) async fn open_request(&self) -> Open {
        let announcement = self.describe().await.announcement;
        Open {
            session: self.new_session(),
            model: announcement.model,
            class: announcement.class,
            blocks: announcement.blocks,
            tokens: TokenCount(64),
        }
    }

    pub(crate) async fn session_stream(&self) -> Session {
        let (reader, writer) = self.stream(StreamKind::Session).await.into_frames(PAYLOAD_LIMIT);
        Session { id: SessionId([0; 16]), linked: Vec::new(), reader, writer }
    }

    pub(crate) async fn open(&self, open: Open) -> Result<Session, Refusal> {
        let mut session = self.session_stream().await;
        let id = open.session;
        session.send(SessionRequest::Open(open)).await;
        match session.next().await.0 {
            SessionReply::Opened { .. } => {
                session.id = id;
                Ok(session)
            }
            SessionReply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// A session whose output comes back to this client.
    pub(crate) async fn open_session(&self) -> Session {
        let mut session = self.open_quiet().await;
        session.connect(OWNER_LINK, Output::Owner, 0).await;
        session
    }

    /// A session whose output goes nowhere yet.
    pub(crate) async fn open_quiet(&self) -> Session {
        self.open(self.open_request().await).await.unwrap()
    }

    /// Comes to a session with what a server would come with; gives the stream and the first answer.
    pub(crate) async fn visit(&self, first: SessionRequest) -> (Session, SessionReply) {
        let mut stream = self.session_stream().await;
        stream.send(first).await;
        let (reply, _) = stream.next().await;
        (stream, reply)
    }

    /// Comes to feed a session over a link.
    pub(crate) async fn feed(&self, session: &Session, link: u32) -> (Session, SessionReply) {
        self.visit(SessionRequest::Feed(Incoming { session: session.id, link })).await
    }

    /// A session on this client's server, as another server is told of it.
    pub(crate) fn as_next(&self, session: &Session) -> Next {
        Next { peer: self.server, addresses: vec![self.address.clone()], session: session.id, max_rows: 64 }
    }
}

/// A session's stream.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// The links that the server has said to feed, in the order of its words.
    pub(crate) linked: Vec<u32>,
    reader: FrameReader<SessionReply>,
    writer: FrameWriter<SessionRequest>,
}

impl Session {
    pub(crate) async fn send(&mut self, request: SessionRequest) {
        self.writer.send(&request, &[]).await.unwrap();
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.writer.send_bytes(bytes).await.unwrap();
    }

    /// The rows of consecutive positions; output is wanted from `wanted_from` on.
    pub(crate) async fn send_step(&mut self, position: u32, count: u32, wanted_from: u32) {
        self.send_rows(Step { epoch: 1, position, rows: header(count), wanted_from }, &rows(position, count)).await;
    }

    pub(crate) async fn send_rows(&mut self, step: Step, payload: &[u8]) {
        self.writer.send(&SessionRequest::Step(step), payload).await.unwrap();
    }

    /// A message with a payload.
    pub(crate) async fn send_with(&mut self, request: SessionRequest, payload: &[u8]) {
        self.writer.send(&request, payload).await.unwrap();
    }

    pub(crate) async fn connect(&mut self, link: u32, output: Output, position: u32) {
        self.send(SessionRequest::Connect(Connect { lane: Lane::Main, link, output, position })).await;
    }

    /// Names the input, and returns when the server has heard it.
    pub(crate) async fn accept(&mut self, input: Input) {
        self.send(SessionRequest::Accept(input)).await;
        self.is_quiet().await;
    }

    /// What the server says next, but that it feeds a link, which may come at any time.
    pub(crate) async fn next(&mut self) -> (SessionReply, Vec<u8>) {
        loop {
            match soon(self.reader.next()).await.unwrap().expect("the stream ended") {
                (SessionReply::Linked { link }, _) => self.linked.push(link),
                reply => return reply,
            }
        }
    }

    /// Everything that was asked before has been answered, and nothing has been said.
    pub(crate) async fn is_quiet(&mut self) {
        self.send(SessionRequest::Ping { nonce: 9 }).await;
        assert_eq!(self.next().await.0, SessionReply::Pong { nonce: 9 });
    }

    /// Waits for the stream's end; what comes before is no matter.
    pub(crate) async fn has_ended(&mut self) {
        while let Ok(Some(_)) = soon(self.reader.next()).await {}
    }

    /// The output rows of a step that is computed.
    pub(crate) async fn output(&mut self, position: u32, count: u32) -> Vec<u8> {
        self.send_step(position, count, position).await;
        self.computed(position, count, position).await
    }

    /// The output rows from `wanted_from` on of a step that is computed, whoever has sent it, and the word that it is.
    pub(crate) async fn computed(&mut self, position: u32, count: u32, wanted_from: u32) -> Vec<u8> {
        let mut outputs = Vec::new();
        loop {
            match self.next().await {
                (SessionReply::Output(output), rows) => {
                    assert_eq!(output.position, wanted_from + (outputs.len() / ROW) as u32);
                    assert_eq!(output.rows.rows as usize * ROW, rows.len());
                    outputs.extend(rows);
                }
                (SessionReply::Done(done), _) => {
                    assert_eq!((done.epoch, done.position, done.rows), (1, position, count));
                    return outputs;
                }
                (SessionReply::Received { .. }, _) => {}
                (other, _) => panic!("{other:?}"),
            }
        }
    }

    /// Output rows of the positions `[position, position + count)`, in as many frames as they come.
    pub(crate) async fn rows_of(&mut self, link: u32, position: u32, count: u32) -> Vec<u8> {
        let mut outputs = Vec::new();
        while outputs.len() < count as usize * ROW {
            match self.next().await {
                (SessionReply::Output(output), rows) => {
                    assert_eq!(
                        (output.link, output.position as usize),
                        (link, position as usize + outputs.len() / ROW)
                    );
                    outputs.extend(rows);
                }
                (other, _) => panic!("{other:?}"),
            }
        }
        outputs
    }

    /// Why a step is not computed.
    pub(crate) async fn failure(&mut self, position: u32, count: u32) -> StepError {
        self.send_step(position, count, position).await;
        match self.next().await.0 {
            SessionReply::Failed { epoch: 1, position: at, error } if at == position => error,
            other => panic!("{other:?}"),
        }
    }
}
