//! The client's own part of the model on a thread of its own: embedding, final norm, head and sampling are computation,
//! which has no place on the threads that serve the network.

use std::sync::Arc;

use swarm_model::{ComputePool, Edges, ModelError, Sampler, activations};
use swarm_protocol::activations::{ActivationRows, Rows};
use swarm_protocol::model_id::WeightFormat;
use tokio::sync::{mpsc, oneshot};

use crate::session::SessionError;

/// Jobs waiting for the thread; sessions wait for room.
const QUEUE: usize = 64;

type Job = Box<dyn FnOnce(&Edges) + Send>;

/// A handle on the thread that holds embedding and head. The thread ends with its last handle.
#[derive(Debug, Clone)]
pub(crate) struct EdgesWorker {
    jobs: mpsc::Sender<Job>,
    format: WeightFormat,
    hidden: usize,
}

impl EdgesWorker {
    /// Moves `edges` to a thread of its own, which computes on `pool`.
    ///
    /// # Errors
    /// The system's error if no thread can be started.
    pub(crate) fn start(edges: Edges, pool: Arc<ComputePool>) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let (format, hidden) = (edges.format(), edges.config().hidden);
        std::thread::Builder::new().name("edges".to_string()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                pool.run(|| job(&edges));
            }
        })?;
        Ok(Self { jobs, format, hidden })
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Edges) -> Result<T, ModelError> + Send + 'static,
    ) -> Result<T, SessionError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |edges| {
            // The session may have been dropped.
            let _ = reply.send(job(edges));
        });
        self.jobs.send(job).await.map_err(|_| SessionError::Stopped)?;
        Ok(answer.await.map_err(|_| SessionError::Stopped)??)
    }

    /// The embeddings of `ids`: the input of block 0.
    ///
    /// # Errors
    /// [`SessionError::Model`] if an id is not in the vocabulary.
    pub(crate) async fn embed(&self, ids: Vec<u32>) -> Result<ActivationRows, SessionError> {
        let bytes = self.run(move |edges| activations::to_bytes(&edges.embed(&ids)?)).await?;
        ActivationRows::new(self.format, self.hidden as u32, bytes)
            .ok_or(SessionError::WrongRows { hidden: self.hidden })
    }

    /// The logits `(rows, vocabulary)` of the last block's output, row after row.
    ///
    /// # Errors
    /// [`SessionError::Model`] if the rows are not of the model's width.
    pub(crate) async fn logits(&self, rows: ActivationRows) -> Result<Vec<Vec<f32>>, SessionError> {
        let (format, hidden) = (self.format, self.hidden);
        self.run(move |edges| {
            let hidden = activations::from_bytes(format, rows.rows(), hidden, rows.bytes())?;
            Ok(edges.logits(&hidden)?.to_vec2::<f32>()?)
        })
        .await
    }

    /// The token that follows the last of `rows`; the sampler and the history come back with it.
    pub(crate) async fn sample(
        &self,
        rows: ActivationRows,
        mut sampler: Sampler,
        history: Vec<u32>,
    ) -> Result<(u32, Sampler, Vec<u32>), SessionError> {
        let (format, hidden) = (self.format, self.hidden);
        self.run(move |edges| {
            let count = rows.rows();
            let hidden = activations::from_bytes(format, count, hidden, rows.bytes())?;
            let logits = edges.logits(&hidden.narrow(0, count - 1, 1)?)?.squeeze(0)?;
            let token = sampler.sample(&logits, &history)?;
            Ok((token, sampler, history))
        })
        .await
    }
}
