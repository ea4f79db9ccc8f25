//! What a hub is told while it runs, one order a line.

use std::fmt;
use std::str::FromStr;

use super::link::{BadLink, Link};
use super::network::{Host, Network};

/// A change to a running network. Hosts are named.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// `cut A B`, or `cut A` from every other host.
    Cut(String, Option<String>),
    /// `heal A B`, or `heal A` with every other host.
    Heal(String, Option<String>),
    /// `link A B delay=25ms …`: settings that are not given stay.
    Link(String, String, Vec<String>),
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum BadOrder {
    /// No such order.
    #[error("{0:?} is no order: cut A [B], heal A [B], link A B SETTING=VALUE…")]
    Unknown(String),
    /// No such host.
    #[error("there is no host {0:?}")]
    NoHost(String),
    /// A setting that links do not have.
    #[error(transparent)]
    Link(#[from] BadLink),
}

impl Order {
    /// Sets every value of the link between `a` and `b`.
    pub fn link(a: &str, b: &str, link: Link) -> Self {
        let settings = link.to_string().split(' ').map(str::to_string).collect();
        Self::Link(a.to_string(), b.to_string(), settings)
    }

    /// Carries it out in a network whose hosts have the names `names`.
    ///
    /// # Errors
    /// [`BadOrder`] if it names something that does not exist; then nothing is changed.
    pub fn apply(&self, network: &mut Network, names: &[String]) -> Result<(), BadOrder> {
        let host = |wanted: &String| {
            names.iter().position(|name| name == wanted).ok_or_else(|| BadOrder::NoHost(wanted.clone()))
        };
        let mut set_cut = |a: &String, b: &Option<String>, cut: bool| -> Result<(), BadOrder> {
            let a = host(a)?;
            let others: Vec<Host> = match b {
                Some(b) => vec![host(b)?],
                None => (0..names.len()).filter(|other| *other != a).collect(),
            };
            others.into_iter().for_each(|b| network.set_cut(a, b, cut));
            Ok(())
        };
        match self {
            Self::Cut(a, b) => set_cut(a, b, true),
            Self::Heal(a, b) => set_cut(a, b, false),
            Self::Link(a, b, settings) => {
                let (a, b) = (host(a)?, host(b)?);
                let link = network.link(a, b).changed(settings.iter().map(String::as_str))?;
                network.set_link(a, b, link);
                Ok(())
            }
        }
    }
}

impl FromStr for Order {
    type Err = BadOrder;

    fn from_str(line: &str) -> Result<Self, BadOrder> {
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        let order = match words.as_slice() {
            [word, a, rest @ ..] if rest.len() <= 1 && word == "cut" => Self::Cut(a.clone(), rest.first().cloned()),
            [word, a, rest @ ..] if rest.len() <= 1 && word == "heal" => Self::Heal(a.clone(), rest.first().cloned()),
            [word, a, b, settings @ ..] if word == "link" => Self::Link(a.clone(), b.clone(), settings.to_vec()),
            _ => return Err(BadOrder::Unknown(line.to_string())),
        };
        Ok(order)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(a, Some(b)) => write!(f, "cut {a} {b}"),
            Self::Cut(a, None) => write!(f, "cut {a}"),
            Self::Heal(a, Some(b)) => write!(f, "heal {a} {b}"),
            Self::Heal(a, None) => write!(f, "heal {a}"),
            Self::Link(a, b, settings) => write!(f, "link {a} {b} {}", settings.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_order_is_what_is_written() {
        for line in ["cut a b", "cut a", "heal a b", "heal a", "link a b delay=25ms rate=1mbit"] {
            assert_eq!(line.parse::<Order>().unwrap().to_string(), line);
        }
        for line in ["", "cut", "cut a b c", "link a", "mend a b"] {
            assert!(line.parse::<Order>().is_err(), "{line:?}");
        }
    }

    #[test]
    fn an_order_changes_what_it_names() {
        let names = ["a", "b", "c"].map(str::to_string);
        let addresses = (1..=3).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect();
        let far = Link::of_delay(Duration::from_millis(25));
        let mut network = Network::new(addresses, far);
        let mut apply = |line: &str| line.parse::<Order>().and_then(|order| order.apply(&mut network, &names));
        apply("link a b rate=1mbit").unwrap();
        assert!(apply("link a b rate=1mbps").is_err());
        assert!(apply("cut a d").is_err());
        assert_eq!(network.link(1, 0), far.with_rate(1.0));
        assert_eq!(network.link(0, 2), far);
    }
}
