//! The swarm as it changes: server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, stream};
use swarm_client::overview::{Listener, Seen, Watcher};
use tracing::warn;

use super::Unseen;

/// The pause after which a comment says that the stream lives: proxies give up on silent ones after a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `overview` messages with the swarm, beginning at once, and `event` messages with what happens, which are numbered: whoever
/// comes back with `Last-Event-ID` hears what it has missed, as far as it is kept.
pub(super) async fn events(State(watcher): State<Watcher>, headers: HeaderMap) -> Response {
    let Some(listener) = watcher.listen() else {
        return Unseen::TooManyListeners.into_response();
    };
    let heard = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let messages = Sse::new(messages(Telling { listener, heard, ready: VecDeque::new() }));
    let messages = messages.keep_alive(KeepAlive::new().interval(HEARTBEAT).text("still here"));
    // Proxies must not collect what is to be seen at once.
    ([(header::CACHE_CONTROL, "no-store"), (header::HeaderName::from_static("x-accel-buffering"), "no")], messages)
        .into_response()
}

/// One listener's place in what is told.
struct Telling {
    listener: Listener,
    /// The number of the last event that it has heard; none before the first look.
    heard: Option<u64>,
    ready: VecDeque<Event>,
}

fn messages(telling: Telling) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(telling, |mut telling| async move {
        loop {
            if let Some(event) = telling.ready.pop_front() {
                return Some((Ok(event), telling));
            }
            let seen = telling.listener.next().await?;
            telling.take(&seen);
        }
    })
}

impl Telling {
    fn take(&mut self, seen: &Seen) {
        let last = seen.timeline.last();
        // Numbers above the last one are of a process before this one.
        let after = match self.heard {
            None => last,
            Some(heard) if heard > last => 0,
            Some(heard) => heard,
        };
        self.heard = Some(last);
        let events = seen
            .timeline
            .after(after)
            .map(|event| Event::default().event("event").id(event.sequence.to_string()).json_data(event.as_ref()));
        let overview = Event::default().event("overview").json_data(&*seen.overview);
        for message in events.chain([overview]) {
            match message {
                Ok(message) => self.ready.push_back(message),
                Err(error) => warn!(%error, "an event could not be written"),
            }
        }
    }
}
