//! What was measured, and what it is held against.

use serde::Serialize;
use swarm_protocol::model_id::WeightFormat;

use super::contest::{Contest, Loaded};
use super::workloads::{EIGHT_ROWS, ONE_ROW, PREFILL, WORKLOADS, Workload};
use crate::goal::Goal;
use crate::report::Tables;
use crate::stats::Summary;
use crate::table::Table;

/// Percent of the read bandwidth that decoding one row uses.
const READING: [(WeightFormat, f64); 4] =
    [(WeightFormat::Bf16, 70.0), (WeightFormat::Q8_0, 70.0), (WeightFormat::Q4_0, 55.0), (WeightFormat::Q4K, 55.0)];
/// What eight rows cost of one.
const EIGHT_OVER_ONE: f64 = 3.5;
/// Percent of the multiply-adds in f32 that a prompt in bf16 uses.
const MULTIPLY_ADDS: f64 = 65.0;
/// How many times as fast as llama.cpp.
const TIMES_LLAMA_CPP: [(Workload, &[(WeightFormat, f64)]); 3] = [
    (
        ONE_ROW,
        &[
            (WeightFormat::F16, 1.0),
            (WeightFormat::Bf16, 1.2),
            (WeightFormat::Q8_0, 1.2),
            (WeightFormat::Q4_0, 1.0),
            (WeightFormat::Q4K, 1.0),
        ],
    ),
    (
        EIGHT_ROWS,
        &[
            (WeightFormat::F16, 1.0),
            (WeightFormat::Bf16, 1.0),
            (WeightFormat::Q8_0, 1.0),
            (WeightFormat::Q4_0, 1.0),
            (WeightFormat::Q4K, 1.0),
        ],
    ),
    (PREFILL, &[(WeightFormat::Q8_0, 1.0), (WeightFormat::Q4_0, 1.0), (WeightFormat::Q4K, 1.0)]),
];

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) model: String,
    pub(crate) llama_cpp: Option<String>,
    pub(crate) read_gb_per_second: Summary,
    pub(crate) multiply_add_gf_per_second: Summary,
    pub(crate) rows: Vec<Row>,
}

/// One format under one workload; all times are milliseconds per block.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) format: &'static str,
    pub(crate) workload: Workload,
    pub(crate) ours: Summary,
    /// `None` where it cannot do it.
    pub(crate) candle: Option<Summary>,
    /// `None` where it is not there.
    pub(crate) llama_cpp: Option<Summary>,
    /// In which the block's weights can be read.
    pub(crate) read_ms: f64,
    /// In which the rows' products with the weights can be added in f32.
    pub(crate) multiply_add_ms: f64,
}

impl Row {
    /// Of a contest that has been measured; the first round found cold caches and is left out.
    pub(crate) fn of(loaded: &Loaded, contest: &Contest, read_ms: f64, multiply_add_ms: f64) -> Self {
        let times = contest.times.get(1..).unwrap_or_default();
        let summary = |samples: Vec<f64>| (!samples.is_empty()).then(|| Summary::of(samples));
        Self {
            format: loaded.format.name(),
            workload: contest.workload,
            ours: Summary::of(times.iter().map(|times| times.ours)),
            candle: summary(times.iter().filter_map(|times| times.candle).collect()),
            llama_cpp: summary(times.iter().filter_map(|times| times.llama_cpp).collect()),
            read_ms,
            multiply_add_ms,
        }
    }
}

impl Results {
    fn find(&self, format: WeightFormat, workload: Workload) -> Option<&Row> {
        self.rows.iter().find(|row| row.format == format.name() && row.workload == workload)
    }

    /// Those of the formats that were measured.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let reading = READING.into_iter().filter_map(|(format, least)| self.reading(format, least));
        let eight = WeightFormat::ALL.into_iter().filter_map(|format| self.eight_over_one(format));
        let floats = WORKLOADS.into_iter().filter_map(|workload| self.bf16_over_f32(workload));
        let beside = TIMES_LLAMA_CPP.into_iter().flat_map(|(workload, formats)| {
            formats.iter().filter_map(move |(format, least)| self.times_llama_cpp(*format, workload, *least))
        });
        reading.chain(eight).chain(self.multiply_adds()).chain(floats).chain(beside).collect()
    }

    fn reading(&self, format: WeightFormat, least: f64) -> Option<Goal> {
        let row = self.find(format, ONE_ROW)?;
        let share = 100.0 * row.read_ms / row.ours.median;
        Some(Goal::at_least(format!("{format}'s {} uses", ONE_ROW.name), "% of the read bandwidth", least, share))
    }

    fn eight_over_one(&self, format: WeightFormat) -> Option<Goal> {
        let ratio = self.find(format, EIGHT_ROWS)?.ours.median / self.find(format, ONE_ROW)?.ours.median;
        Some(Goal::new(format!("{format}'s step of eight rows over that of one"), "times", EIGHT_OVER_ONE, ratio))
    }

    fn multiply_adds(&self) -> Option<Goal> {
        let row = self.find(WeightFormat::Bf16, PREFILL)?;
        let share = 100.0 * row.multiply_add_ms / row.ours.median;
        Some(Goal::at_least(format!("bf16's {} uses", PREFILL.name), "% of the multiply-adds", MULTIPLY_ADDS, share))
    }

    /// bf16 must not be slower than f32, of which it reads half the bytes.
    fn bf16_over_f32(&self, workload: Workload) -> Option<Goal> {
        let ratio =
            self.find(WeightFormat::Bf16, workload)?.ours.median / self.find(WeightFormat::F32, workload)?.ours.median;
        Some(Goal::new(format!("bf16's time for {} over f32's", workload.name), "times", 1.0, ratio))
    }

    fn times_llama_cpp(&self, format: WeightFormat, workload: Workload, least: f64) -> Option<Goal> {
        let row = self.find(format, workload)?;
        let times = row.llama_cpp?.median / row.ours.median;
        Some(Goal::at_least(format!("{format}'s {} is as fast as llama.cpp", workload.name), "times", least, times))
    }
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let other = |ours: Summary, other: Option<Summary>| match other {
            Some(other) => [other.to_string(), format!("{:.2}x", other.median / ours.median)],
            None => ["–".to_string(), "–".to_string()],
        };
        let row = |row: &Row| {
            let mut cells = vec![
                format!("{} {}", row.format, row.workload.name),
                row.ours.to_string(),
                format!("{:.0}%", 100.0 * row.read_ms / row.ours.median),
                format!("{:.0}%", 100.0 * row.multiply_add_ms / row.ours.median),
            ];
            cells.extend(other(row.ours, row.candle));
            if self.llama_cpp.is_some() {
                cells.extend(other(row.ours, row.llama_cpp));
            }
            cells
        };
        let beside = self.llama_cpp.as_ref().map_or_else(String::new, |about| format!("; llama.cpp: {about}"));
        let title = format!(
            "Milliseconds per block, median (quartiles): {}; memory is read at {:.1} GB/s, multiply-adds in f32 {:.0} \
             GF/s{beside}",
            self.model, self.read_gb_per_second, self.multiply_add_gf_per_second
        );
        let mut header = vec!["workload", "swarm-model", "reading", "multiply-adds", "candle-transformers", ""];
        if self.llama_cpp.is_some() {
            header.extend(["llama.cpp", ""]);
        }
        vec![Table { title, header, rows: self.rows.iter().map(row).collect() }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(format: WeightFormat, workload: Workload, ours: f64, llama_cpp: f64) -> Row {
        let (ours, llama_cpp) = (Summary::of([ours]), Some(Summary::of([llama_cpp])));
        Row { format: format.name(), workload, ours, candle: None, llama_cpp, read_ms: 1.0, multiply_add_ms: 5.0 }
    }

    #[test]
    fn goals_are_those_of_what_was_measured() {
        let rows = vec![
            row(WeightFormat::Q8_0, ONE_ROW, 1.25, 1.25),
            row(WeightFormat::Q8_0, EIGHT_ROWS, 5.0, 10.0),
            row(WeightFormat::Bf16, PREFILL, 10.0, 1.0),
        ];
        let one = Summary::of([1.0]);
        let results = Results {
            model: String::new(),
            llama_cpp: None,
            read_gb_per_second: one,
            multiply_add_gf_per_second: one,
            rows,
        };
        let goals: Vec<String> = results.goals().iter().map(ToString::to_string).collect();
        assert_eq!(
            goals,
            [
                "met: q8_0's decode, 1 row uses 80.00 % of the read bandwidth, goal at least 70 % of the read bandwidth",
                "MISSED: q8_0's step of eight rows over that of one 4.00 times, goal at most 3.5 times",
                "MISSED: bf16's prefill, 512 rows uses 50.00 % of the multiply-adds, goal at least 65 % of the multiply-adds",
                "MISSED: q8_0's decode, 1 row is as fast as llama.cpp 1.00 times, goal at least 1.2 times",
                "met: q8_0's decode, 8 rows is as fast as llama.cpp 2.00 times, goal at least 1 times",
            ]
        );
    }
}
