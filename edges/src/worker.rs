//! The thread, and the handle on it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use swarm_model::{ComputePool, Edges, ModelError, activations};
use swarm_protocol::activations::{ActivationRows, Rows};
use swarm_protocol::model_id::WeightFormat;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::choice::{Choice, Chosen, Wish, choose_all, embedded};

/// Jobs waiting for the thread; whoever has more waits for room.
const QUEUE: usize = 64;

/// Why a job was not done.
#[derive(Debug, Error)]
pub enum EdgesError {
    /// The model does not take what came.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The rows are not of the model's width and type.
    #[error("the rows do not fit the model: expected (rows, {hidden}) of the model's activation type")]
    WrongRows {
        /// Width of the model's hidden state.
        hidden: usize,
    },
    /// Computing it panicked.
    #[error("computing it panicked; the server's log says where")]
    Panicked,
    /// The thread has ended.
    #[error("the thread that holds embedding and head has ended")]
    Stopped,
}

enum Job {
    Choose(Box<Choice>),
    Other(Box<dyn FnOnce(&Edges) + Send>),
}

/// Whoever asked for what panics gets no answer; the thread goes on for the others.
fn unless_it_panics(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}

/// A handle on the thread that holds embedding and head. The thread ends with its last handle.
#[derive(Debug, Clone)]
pub struct EdgesWorker {
    jobs: mpsc::Sender<Job>,
    format: WeightFormat,
    hidden: usize,
}

impl EdgesWorker {
    /// Moves `edges` to a thread of its own, which computes on `pool` and takes up one of its threads.
    ///
    /// # Errors
    /// The system's error if no thread can be started.
    pub fn start(edges: Edges, pool: ComputePool) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let (format, hidden) = (edges.format(), edges.config().hidden);
        #[allow(clippy::disallowed_methods)] // On a thread of its own.
        let work = move || {
            while let Some(first) = queue.blocking_recv() {
                let waiting = std::iter::from_fn(|| queue.try_recv().ok());
                let choices = std::iter::once(first).chain(waiting).take(QUEUE).filter_map(|job| match job {
                    Job::Choose(choice) => Some(*choice),
                    Job::Other(job) => {
                        unless_it_panics(|| job(&edges));
                        None
                    }
                });
                let choices: Vec<Choice> = choices.collect();
                unless_it_panics(|| choose_all(&edges, choices));
            }
        };
        // All of it on the pool: a job that had to wake another thread would wait for a core twice.
        std::thread::Builder::new().name("edges".to_string()).spawn(move || pool.run(work))?;
        Ok(Self { jobs, format, hidden })
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Edges) -> Result<T, ModelError> + Send + 'static,
    ) -> Result<T, EdgesError> {
        let (reply, answer) = oneshot::channel();
        let job = move |edges: &Edges| {
            // The session may have been dropped.
            let _ = reply.send(job(edges));
        };
        self.jobs.send(Job::Other(Box::new(job))).await.map_err(|_| EdgesError::Stopped)?;
        Ok(answer.await.map_err(|_| EdgesError::Panicked)??)
    }

    /// The embeddings of `ids`: the input of block 0.
    ///
    /// # Errors
    /// [`EdgesError::Model`] if an id is not in the vocabulary.
    pub async fn embed(&self, ids: Vec<u32>) -> Result<ActivationRows, EdgesError> {
        self.run(move |edges| embedded(edges, &ids)).await
    }

    /// The logits `(rows, vocabulary)` of the last block's output, row after row.
    ///
    /// # Errors
    /// [`EdgesError::Model`] if the rows are not of the model's width.
    pub async fn logits(&self, rows: ActivationRows) -> Result<Vec<Vec<f32>>, EdgesError> {
        let (format, hidden) = (self.format, self.hidden);
        self.run(move |edges| {
            let hidden = activations::from_bytes(format, rows.rows(), hidden, rows.bytes())?;
            Ok(edges.logits(&hidden)?.to_vec2::<f32>()?)
        })
        .await
    }

    /// The last block's output after the final norm `(rows, hidden)`, row after row.
    ///
    /// # Errors
    /// [`EdgesError::Model`] if the rows are not of the model's width.
    pub async fn final_norm(&self, rows: ActivationRows) -> Result<Vec<Vec<f32>>, EdgesError> {
        let (format, hidden) = (self.format, self.hidden);
        self.run(move |edges| {
            let hidden = activations::from_bytes(format, rows.rows(), hidden, rows.bytes())?;
            Ok(edges.final_norm(&hidden)?.to_vec2::<f32>()?)
        })
        .await
    }

    /// The token that follows the last of the rows.
    ///
    /// # Errors
    /// [`EdgesError`] if there are no rows, they are not of the model's width, or they give no finite logits.
    pub async fn choose(&self, wish: Wish) -> Result<Chosen, EdgesError> {
        if wish.rows.rows() == 0 {
            return Err(EdgesError::WrongRows { hidden: self.hidden });
        }
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Choose(Box::new(Choice { wish, reply }))).await.map_err(|_| EdgesError::Stopped)?;
        Ok(answer.await.map_err(|_| EdgesError::Panicked)??)
    }
}
