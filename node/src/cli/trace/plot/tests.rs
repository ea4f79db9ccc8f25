use super::super::testing::trace;
use super::*;

#[test]
fn the_picture_is_well_formed_and_stays_on_its_page() {
    for tokens in [1, 2, 3, 120, 1500] {
        let log = TraceLog::read(trace(tokens).as_bytes()).unwrap();
        let svg = svg(&log, &TraceSummary::of(&log));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{tokens}");
        for tag in ["rect", "text"] {
            let count = |pattern: String| svg.matches(&pattern).count();
            let selfclosed =
                svg.lines().filter(|line| line.starts_with(&format!("<{tag}")) && line.ends_with("/>")).count();
            assert_eq!(count(format!("<{tag} ")), count(format!("</{tag}>")) + selfclosed, "{tag}");
        }
        for rect in svg.lines().filter(|line| line.starts_with("<rect x=")) {
            let number = |name: &str| -> f64 {
                let from = rect.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
                rect[from..].split('"').next().unwrap().parse().unwrap()
            };
            assert!(number("width") >= 0.0 && number("height") >= 0.0, "{rect}");
            assert!(number("x") >= 0.0 && number("x") + number("width") <= WIDTH, "{rect}");
        }
        if let Ok(path) = std::env::var("TRACE_PLOT_TO") {
            std::fs::write(format!("{path}-{tokens}.svg"), svg).unwrap();
        }
    }
}

#[test]
fn a_loss_is_shown() {
    let log = TraceLog::read(trace(120).as_bytes()).unwrap();
    let svg = svg(&log, &TraceSummary::of(&log));
    assert!(svg.contains("Token 61, when a server was replaced"), "{svg}");
}
