//! Why this route: lines a person reads.

use std::fmt;
use std::time::Duration;

use super::{Cost, Route, RouteHop};

impl Route {
    /// One line per hop with what it costs, and one for the whole: what `--show-route` prints.
    pub fn explain(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.hops.iter().map(RouteHop::to_string).collect();
        lines.push(format!("{} back to the client", millis(self.back)));
        lines.push(format!("{} a step: {}", millis(self.cost().total()), self.cost()));
        lines
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.explain().join("\n"))
    }
}

impl fmt::Display for RouteHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks {} on {}: {}", self.blocks, self.peer, self.cost)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [link, handling, queue, compute] = [self.link, self.handling, self.queue, self.compute].map(millis);
        write!(f, "{link} link + {handling} handling + {queue} queue + {compute} compute")
    }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
