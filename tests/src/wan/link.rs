//! One direction of a link between two hosts: when a packet that is sent now arrives, if it does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::Rng;

/// What a queue before a slow link holds, in sending time: a home router's, with room for a burst.
const QUEUE: Duration = Duration::from_millis(200);

/// Both directions of a link, alike.
///
/// Written and read as `delay=25ms jitter=2ms rate=100mbit loss=1% queue=200ms`; what is not given stays as it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// From one end to the other.
    pub delay: Duration,
    /// The delay varies by up to this much either way. Packets keep their order.
    pub jitter: Duration,
    /// Megabits (10⁶) a second; `None` for no limit.
    pub rate: Option<f64>,
    /// The share of packets that is lost, from 0 to 1.
    pub loss: f64,
    /// A packet that would wait longer for its turn on a link with a rate is lost.
    pub queue: Duration,
}

impl Link {
    /// A link that is only far.
    pub const fn of_delay(delay: Duration) -> Self {
        Self { delay, jitter: Duration::ZERO, rate: None, loss: 0.0, queue: QUEUE }
    }

    /// The same with a rate, in megabits a second.
    pub const fn with_rate(self, rate: f64) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// How long a packet of `bytes` occupies it.
    pub fn sending_time(&self, bytes: usize) -> Duration {
        let seconds = |rate: f64| bytes as f64 * 8.0 / (rate * 1e6);
        self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(seconds(rate)))
    }

    /// The same link with the settings `words` changed.
    ///
    /// # Errors
    /// What is wrong with a word.
    pub fn changed<'a>(self, words: impl IntoIterator<Item = &'a str>) -> Result<Self, BadLink> {
        words.into_iter().try_fold(self, Self::with)
    }

    fn with(self, word: &str) -> Result<Self, BadLink> {
        let bad = || BadLink(word.to_string());
        let (name, value) = word.split_once('=').ok_or_else(bad)?;
        let milliseconds = || Some(Duration::from_secs_f64(positive(value.strip_suffix("ms")?)? / 1e3));
        let changed = match name {
            "delay" => milliseconds().map(|delay| Self { delay, ..self }),
            "jitter" => milliseconds().map(|jitter| Self { jitter, ..self }),
            "queue" => milliseconds().map(|queue| Self { queue, ..self }),
            "rate" if value == "none" => Some(Self { rate: None, ..self }),
            "rate" => value.strip_suffix("mbit").and_then(positive).map(|rate| self.with_rate(rate)),
            "loss" => value.strip_suffix('%').and_then(positive).map(|percent| Self { loss: percent / 100.0, ..self }),
            _ => None,
        };
        changed.filter(|link| link.loss <= 1.0 && link.rate != Some(0.0)).ok_or_else(bad)
    }
}

/// A number that is not negative, and no more than any setting needs.
fn positive(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number| (0.0..=1e6).contains(number))
}

/// A word that says nothing about a link.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no setting of a link: delay=25ms jitter=2ms rate=100mbit (or rate=none) loss=1% queue=200ms")]
pub struct BadLink(String);

impl FromStr for Link {
    type Err = BadLink;

    /// Settings that are not given are those of a link without delay or limit.
    fn from_str(text: &str) -> Result<Self, BadLink> {
        Self::of_delay(Duration::ZERO).changed(text.split_whitespace())
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(f, "delay={}ms jitter={}ms ", ms(self.delay), ms(self.jitter))?;
        match self.rate {
            Some(rate) => write!(f, "rate={rate}mbit ")?,
            None => write!(f, "rate=none ")?,
        }
        write!(f, "loss={}% queue={}ms", self.loss * 100.0, ms(self.queue))
    }
}

/// One direction of a link in use. Times are since the network's start.
#[derive(Debug, Clone)]
pub struct Wire {
    /// How it behaves from now on.
    pub link: Link,
    /// When the last packet will have been sent.
    free_at: Duration,
    /// When the last packet will arrive.
    last_arrival: Duration,
}

impl Wire {
    /// A wire that nothing has been sent on.
    pub fn new(link: Link) -> Self {
        Self { link, free_at: Duration::ZERO, last_arrival: Duration::ZERO }
    }

    /// When a packet of `bytes` that is sent at `now` arrives; `None` if it is lost. None overtakes another.
    pub fn send(&mut self, now: Duration, bytes: usize, rng: &mut impl Rng) -> Option<Duration> {
        if self.link.loss > 0.0 && rng.random_bool(self.link.loss) {
            return None;
        }
        let start = if self.link.rate.is_some() { now.max(self.free_at) } else { now };
        if start - now > self.link.queue {
            return None;
        }
        let sent = start + self.link.sending_time(bytes);
        let early = self.link.jitter.mul_f64(2.0 * rng.random::<f64>());
        let arrival =
            (sent + self.link.delay + early).saturating_sub(self.link.jitter).max(sent).max(self.last_arrival);
        (self.free_at, self.last_arrival) = (sent, arrival);
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const PACKET: usize = 1250;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Arrivals of `count` packets sent at `now`.
    fn burst(wire: &mut Wire, now: Duration, count: usize) -> Vec<Option<Duration>> {
        let mut rng = StdRng::seed_from_u64(1);
        (0..count).map(|_| wire.send(now, PACKET, &mut rng)).collect()
    }

    #[test]
    fn a_far_link_delays_and_nothing_else() {
        let mut wire = Wire::new(Link::of_delay(ms(25)));
        assert_eq!(burst(&mut wire, ms(3), 3), [Some(ms(28)); 3]);
    }

    #[test]
    fn a_slow_link_sends_one_packet_after_another_and_drops_what_waits_too_long() {
        // 1250 bytes are 10 ms of one megabit a second.
        let link = Link { queue: ms(25), ..Link::of_delay(ms(5)).with_rate(1.0) };
        let mut wire = Wire::new(link);
        assert_eq!(burst(&mut wire, ms(0), 5), [Some(ms(15)), Some(ms(25)), Some(ms(35)), None, None]);
        assert_eq!(burst(&mut wire, ms(30), 1), [Some(ms(45))], "it is free again");
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_keeps_the_order() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut wire = Wire::new(Link { jitter: ms(10), ..Link::of_delay(ms(25)) });
        let sent: Vec<Duration> = (0..500).map(ms).collect();
        let arrived: Vec<Duration> = sent.iter().map(|now| wire.send(*now, PACKET, &mut rng).unwrap()).collect();
        assert!(arrived.is_sorted());
        let delays: Vec<Duration> = arrived.iter().zip(&sent).map(|(arrived, sent)| *arrived - *sent).collect();
        assert!(delays.iter().all(|delay| (ms(15)..=ms(35)).contains(delay)));
        assert!(delays.iter().any(|delay| *delay < ms(25)) && delays.iter().any(|delay| *delay > ms(30)));
    }

    #[test]
    fn the_share_that_is_lost_is_lost() {
        let mut wire = Wire::new(Link { loss: 0.2, ..Link::of_delay(ms(1)) });
        let lost = burst(&mut wire, ms(0), 10_000).iter().filter(|arrival| arrival.is_none()).count();
        assert!((1800..2200).contains(&lost), "{lost}");
    }

    #[test]
    fn a_link_is_what_is_written() {
        let link: Link = "delay=25ms rate=100mbit loss=1%".parse().unwrap();
        assert_eq!(link, Link { loss: 0.01, ..Link::of_delay(ms(25)).with_rate(100.0) });
        assert_eq!(link.to_string().parse::<Link>().unwrap(), link);
        assert_eq!(link.changed(["rate=none", "loss=0%"]).unwrap(), Link::of_delay(ms(25)));
        for bad in ["delay=25", "delay", "rate=0mbit", "loss=200%", "delay=-1ms", "delay=nanms", "speed=1mbit"] {
            assert!(bad.parse::<Link>().is_err(), "{bad}");
        }
    }
}
