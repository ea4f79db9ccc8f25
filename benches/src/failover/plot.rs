//! When the tokens came, as a picture.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::{Outcome, Results, Round};

const SIZE: (u32, u32) = (960, 540);

/// One for each fault; apart also for those who see no red or green.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// Writes an SVG: for each fault the typical round, its tokens counted from the fault over the seconds since.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(path: &Path, results: &Results) -> Result<()> {
    draw(path, results).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw(path: &Path, results: &Results) -> Result<(), Box<dyn std::error::Error>> {
    let lines: Vec<(&Outcome, Vec<(f64, f64)>)> =
        results.faults.iter().filter_map(|outcome| Some((outcome, points(outcome.typical()?)))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let bounds = |part: fn(&(f64, f64)) -> f64| {
        all().map(part).fold((0.0_f64, 0.0_f64), |(low, high), at| (low.min(at), high.max(at)))
    };
    let (seconds, tokens) = (bounds(|point| point.0), bounds(|point| point.1));
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!("A server of {} blocks is lost at token {}", results.replayed_blocks, results.replayed_tokens);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(seconds.0..seconds.1, tokens.0..tokens.1)?;
    chart.configure_mesh().light_line_style(WHITE).x_desc("seconds since the fault").y_desc("tokens since").draw()?;
    chart.draw_series([PathElement::new([(0.0, tokens.0), (0.0, tokens.1)], BLACK.mix(0.5))])?;
    for ((outcome, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let label = format!("{} (longest gap {:.0} ms)", outcome.name, outcome.longest_gap.median);
        chart
            .draw_series([PathElement::new(points.clone(), *colour)])?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], *colour));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 2, colour.filled())))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).border_style(BLACK.mix(0.3)).draw()?;
    Ok(area.present()?)
}

/// Seconds since the fault, and the number of each token; the last before the fault is 0.
fn points(round: &Round) -> Vec<(f64, f64)> {
    let before = round.token_ms.iter().filter(|time| **time <= 0.0).count() as f64;
    let numbers = (1..).map(|number| f64::from(number) - before);
    round.token_ms.iter().zip(numbers).map(|(time, number)| (time / 1e3, number)).collect()
}
