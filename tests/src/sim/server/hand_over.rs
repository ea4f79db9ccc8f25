//! Handing a KV cache over, and taking one in.

use std::collections::VecDeque;
use std::time::Duration;

use swarm_protocol::session::SessionId;
use swarm_protocol::wire::{CloseReason, HandOver, Incoming, KvHeader, SessionReply, SessionRequest};

use super::feed_in::Early;
use super::{Job, Role, Server, incoming};
use crate::sim::message::{Payload, node_of};
use crate::sim::network::{Net, StreamId, Timer};
use crate::sim::rows::Activations;

/// How long the other server may take to be dialled, and to store one piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(20);

/// Positions in one piece.
const PIECE: usize = 5;

/// A hand-over under way.
pub(super) struct HandingOver {
    link: u32,
    pub(super) stream: StreamId,
    stored: usize,
}

/// The server whose KV cache a session gets, as the session knows it.
pub(super) struct Import {
    pub(super) stream: StreamId,
    pieces: VecDeque<(KvHeader, Payload)>,
}

impl Import {
    pub(super) fn new(stream: StreamId) -> Self {
        Self { stream, pieces: VecDeque::new() }
    }
}

/// The stream over which it comes.
pub(super) struct ImportIn {
    pub(super) session: SessionId,
}

impl Role {
    pub(super) fn import_in(session: SessionId) -> Self {
        Self::ImportIn(ImportIn { session })
    }
}

impl Server {
    pub(super) fn begin_hand_over(&mut self, id: SessionId, order: HandOver, net: &mut Net) {
        let HandOver { link, to } = order;
        let stream = net.open(self.node, node_of(to.peer));
        self.roles.insert(stream, Role::Export(id));
        net.ask(self.node, stream, SessionRequest::Import(incoming(&to, link)), Payload::None);
        net.timer(self.node, net.now + PIECE_TIMEOUT, Timer::Piece(stream, 0));
        let handing = HandingOver { link, stream, stored: 0 };
        let former = self.sessions.get_mut(&id).and_then(|session| session.handing_over.replace(handing));
        if let Some(former) = former {
            self.hang_up(former.stream, net);
        }
    }

    pub(super) fn on_export_reply(&mut self, id: SessionId, stream: StreamId, reply: SessionReply, net: &mut Net) {
        let handing = self.sessions.get_mut(&id).and_then(|session| session.handing_over.as_mut());
        let Some(handing) = handing.filter(|handing| handing.stream == stream) else { return };
        match reply {
            SessionReply::Expected => self.export(id, net),
            SessionReply::Received { position } if position as usize > handing.stored => {
                handing.stored = position as usize;
                self.export(id, net);
            }
            _ => self.on_export_over(id, stream, Some("the other server stopped taking the KV cache in"), net),
        }
    }

    /// Asks the compute thread for the next piece.
    fn export(&mut self, id: SessionId, net: &mut Net) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(HandingOver { stream, stored: from, .. }) = session.handing_over else { return };
        let count = session.state.len().saturating_sub(from).min(PIECE);
        if count == 0 {
            return self.on_export_over(id, stream, None, net);
        }
        session.pending += 1;
        self.jobs.push_back(Job::Export { session: id, epoch: session.state.epoch(), from, count, stream });
    }

    /// A piece is there; it goes out only if no truncation came in between.
    pub(super) fn on_exported(
        &mut self,
        id: SessionId,
        epoch: u32,
        from: usize,
        kv: Option<Vec<Vec<u64>>>,
        stream: StreamId,
        net: &mut Net,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.handing_over.as_ref().is_none_or(|handing| handing.stream != stream) {
            return;
        }
        let count = kv.as_ref().and_then(|kv| kv.first()).map_or(0, Vec::len);
        let same = session.state.epoch() == epoch && session.state.len() >= from + count;
        let Some(kv) = kv.filter(|_| same) else {
            return self.on_export_over(id, stream, Some("the session was rewound meanwhile"), net);
        };
        let outputs: Option<Activations> = session.state.outputs(from, count);
        let header = KvHeader {
            epoch,
            position: from as u32,
            positions: count as u32,
            kv_bytes: 0,
            outputs: super::super::message::shape(outputs.as_ref().map_or(0, |_| count)),
        };
        net.ask(self.node, stream, SessionRequest::Kv(header), Payload::Kv(kv, outputs));
        net.timer(self.node, net.now + PIECE_TIMEOUT, Timer::Piece(stream, from));
    }

    pub(super) fn on_piece_late(&mut self, stream: StreamId, stored: usize, net: &mut Net) {
        let late = self.sessions.iter().find(|(_, session)| {
            session.handing_over.as_ref().is_some_and(|handing| handing.stream == stream && handing.stored == stored)
        });
        if let Some(id) = late.map(|(id, _)| *id) {
            self.on_export_over(id, stream, Some("the other server took too long"), net);
        }
    }

    pub(super) fn on_export_over(&mut self, id: SessionId, stream: StreamId, failure: Option<&str>, net: &mut Net) {
        self.roles.remove(&stream);
        net.close(self.node, stream);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(handing) = session.handing_over.take_if(|handing| handing.stream == stream) {
            let failure = failure.map(str::to_string);
            self.say(id, SessionReply::HandedOver { link: handing.link, failure }, net);
        }
    }

    pub(super) fn on_importer(&mut self, stream: StreamId, incoming: Incoming, net: &mut Net) {
        self.on_visit(incoming.session, Early { stream, link: incoming.link, imports: true }, net);
    }

    pub(super) fn on_importer_gone(&mut self, stream: StreamId, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.import.take_if(|import| import.stream == stream);
        }
    }

    pub(super) fn on_piece(&mut self, stream: StreamId, id: SessionId, header: KvHeader, payload: Payload) {
        let import = self.sessions.get_mut(&id).and_then(|session| session.import.as_mut());
        if let Some(import) = import.filter(|import| import.stream == stream) {
            import.pieces.push_back((header, payload));
        }
    }

    /// Has the next piece stored; `false` if there is none.
    pub(super) fn take_piece(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let piece = session.import.as_mut().and_then(|import| import.pieces.pop_front());
        let Some((header, Payload::Kv(kv, outputs))) = piece else { return false };
        session.pending += 1;
        self.jobs.push_back(Job::Import { session: id, header, kv, outputs });
        true
    }

    pub(super) fn on_imported(
        &mut self,
        id: SessionId,
        header: &KvHeader,
        kv: &[Vec<u64>],
        outputs: Option<Activations>,
        net: &mut Net,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (position, positions) = (header.position as usize, header.positions as usize);
        if session.kv.import(position, kv).is_none() {
            let reason = CloseReason::Protocol("a KV cache could not be taken over".to_string());
            return self.end(id, Some(reason), net);
        }
        session.state.imported(header.epoch, position, positions, outputs);
        let received = SessionReply::Received { position: header.position + header.positions };
        if let Some(import) = &session.import {
            net.say(self.node, import.stream, received.clone(), Payload::None);
        }
        self.admission.touch(id, net.now);
        self.say(id, received, net);
    }
}
