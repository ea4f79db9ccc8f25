//! Models that were seen stay on the screen when they are no longer served. Pure.

use swarm_client::overview::ModelOverview;
use swarm_protocol::block::BlockRange;

/// Models that are kept without a server, so that names that come and go fill no memory.
const MOST_GONE: usize = 16;

/// The models that are there `now`, and those of `before` that are no more, by their names.
pub(super) fn remember(before: &[ModelOverview], now: &[ModelOverview]) -> Vec<ModelOverview> {
    let is_gone = |model: &&ModelOverview| now.iter().all(|there| there.model_id != model.model_id);
    let gone = before.iter().filter(is_gone).take(MOST_GONE).map(without_servers);
    let mut models: Vec<ModelOverview> = now.iter().cloned().chain(gone).collect();
    models.sort_by(|a, b| (&a.name, &a.model_id).cmp(&(&b.name, &b.model_id)));
    models
}

fn without_servers(model: &ModelOverview) -> ModelOverview {
    let blocks = model.blocks as usize;
    ModelOverview {
        known_servers: 0,
        missing: BlockRange::new(0, model.blocks).into_iter().collect(),
        replicas: vec![0; blocks],
        tokens_per_second: vec![0.0; blocks],
        bottleneck: None,
        classes: Vec::new(),
        servers: Vec::new(),
        round_trips: Vec::new(),
        ..model.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::status_testing::{overview, server};
    use super::*;

    #[test]
    fn a_model_stays_without_its_servers_and_comes_back_with_them() {
        let models = overview(4, vec![server("attic", 0, 4)]).models;
        let gone = remember(&models, &[]);
        assert_eq!((gone.len(), gone[0].missing[0].len(), gone[0].servers.len()), (1, 4, 0));
        assert_eq!(remember(&gone, &models), models);
    }

    #[test]
    fn names_that_come_and_go_are_not_all_kept() {
        let mut models = Vec::new();
        for number in 0..3 * MOST_GONE {
            let mut now = overview(4, vec![]).models;
            now[0].model_id = format!("{number}");
            models = remember(&models, &now);
        }
        assert_eq!(models.len(), MOST_GONE + 1);
    }
}
