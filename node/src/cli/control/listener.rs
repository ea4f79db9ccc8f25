//! The server's end: answers visitors while the server runs.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use swarm_node::serve::ServeEvent;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::{ANSWER_WITHIN, MAX_LINE, Reply, Request, Status, folder};

/// Visitors at once; more wait. They are programs of the same user.
const VISITORS: u32 = 16;

/// How long visitors may take to read how it ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The pause after a visitor could not be let in, for want of file descriptors for example.
const PAUSE: Duration = Duration::from_millis(100);

/// A server's socket. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct Control {
    socket: Option<PathBuf>,
    status: Arc<watch::Sender<Status>>,
    wanted: watch::Receiver<bool>,
    visitors: Arc<Semaphore>,
}

impl Control {
    /// Begins to listen for visitors. A server that cannot be visited serves all the same: why not is said beside it.
    pub(crate) fn start(name: Option<String>, model: String) -> (Self, Option<io::Error>) {
        let status = Arc::new(watch::Sender::new(Status::new(name, model)));
        let (leave, wanted) = watch::channel(false);
        let visitors = Arc::new(Semaphore::new(VISITORS as usize));
        let (socket, error) = match listen() {
            Ok((listener, socket)) => {
                tokio::spawn(receive(listener, status.clone(), leave, visitors.clone()));
                (Some(socket), None)
            }
            Err(error) => (None, Some(error)),
        };
        (Self { socket, status, wanted, visitors }, error)
    }

    /// What visitors will be told besides.
    pub(crate) fn teller(&self) -> impl Fn(&ServeEvent) + Send + Sync + 'static {
        let status = self.status.clone();
        move |event| status.send_modify(|status| status.take(event))
    }

    /// Resolves when a visitor wants the server to leave.
    pub(crate) fn wanted(&self) -> impl Future<Output = ()> + 'static {
        let mut wanted = self.wanted.clone();
        async move {
            if wanted.wait_for(|wanted| *wanted).await.is_err() {
                // Nobody can ask any more.
                std::future::pending().await
            }
        }
    }

    /// Tells those who wait that the server has ended, with an error or without, and lets nobody in any more.
    pub(crate) async fn finish(self, error: Option<String>) {
        self.status.send_modify(|status| status.ended(error));
        let _ = timeout(LAST_WORDS, self.visitors.acquire_many(VISITORS)).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            // A visitor may have found it stale already.
            let _ = fs::remove_file(socket);
        }
    }
}

/// Listens in the first folder that lets it.
fn listen() -> io::Result<(UnixListener, PathBuf)> {
    let mut failed = io::Error::other("there is no folder for it");
    for folder in folder::folders() {
        match folder::make_private(&folder).and_then(|()| listen_in(&folder)) {
            Ok(listening) => return Ok(listening),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// A socket gets its name when it is listened on: one that nobody answers under its name is stale.
fn listen_in(folder: &Path) -> io::Result<(UnixListener, PathBuf)> {
    let socket = folder.join(folder::socket_name(std::process::id(), rand::rng().random()));
    let unnamed = socket.with_extension("new");
    let listener = UnixListener::bind(&unnamed)?;
    let named = fs::set_permissions(&unnamed, fs::Permissions::from_mode(0o600));
    if let Err(error) = named.and_then(|()| fs::rename(&unnamed, &socket)) {
        let _ = fs::remove_file(&unnamed);
        return Err(error);
    }
    Ok((listener, socket))
}

async fn receive(
    listener: UnixListener,
    status: Arc<watch::Sender<Status>>,
    leave: watch::Sender<bool>,
    visitors: Arc<Semaphore>,
) {
    let leave = Arc::new(leave);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(place) = visitors.clone().acquire_owned().await else {
            return;
        };
        let (status, leave) = (status.clone(), leave.clone());
        tokio::spawn(async move {
            // A visitor that goes away is not missed.
            let told = serve_visitor(stream, &status, &leave).await;
            drop(place);
            if let Ok(Some(_open)) = told {
                // The end of the stream tells that the process has ended.
                std::future::pending::<()>().await;
            }
        });
    }
}

/// Gives back the stream of a visitor that waits for the end of the process.
async fn serve_visitor(
    stream: UnixStream,
    status: &watch::Sender<Status>,
    leave: &watch::Sender<bool>,
) -> io::Result<Option<OwnedWriteHalf>> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    timeout(ANSWER_WITHIN, BufReader::new(reader.take(MAX_LINE)).read_line(&mut line)).await??;
    match serde_json::from_str(&line)? {
        Request::About => {
            let about = status.borrow().about.clone();
            say(&mut writer, &Reply::About(about)).await?;
            Ok(None)
        }
        Request::Drain => {
            let mut news = status.subscribe();
            leave.send_replace(true);
            status.send_modify(Status::asked_to_leave);
            tell_the_end(&mut writer, &mut news).await?;
            Ok(Some(writer))
        }
    }
}

/// Says everything that happens until the server has ended.
async fn tell_the_end(writer: &mut (impl AsyncWriteExt + Unpin), news: &mut watch::Receiver<Status>) -> io::Result<()> {
    let mut said = None;
    loop {
        let farewell = news.borrow_and_update().farewell.clone();
        if let Some(farewell) = farewell.filter(|farewell| said.as_ref() != Some(farewell)) {
            say(writer, &farewell).await?;
            if matches!(farewell, Reply::Left | Reply::Failed { .. }) {
                return Ok(());
            }
            said = Some(farewell);
        }
        if news.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn say(writer: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let line = format!("{}\n", serde_json::to_string(reply)?);
    timeout(ANSWER_WITHIN, writer.write_all(line.as_bytes())).await?
}
