//! `swarm-node probe`: asks a program over HTTP whether it lives or is ready, for health checks of images without curl.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::output::{BadUsage, Printer};

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(4);

/// Bytes of an answer that are read: a status, and why.
const MOST_BYTES: u64 = 16 * 1024;

/// Ask `serve --http`, `api` or `swarm-bootstrap --http` whether it lives (/health) or is ready (/ready); code 0 says yes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node probe http://127.0.0.1:9100/health
  swarm-node probe http://127.0.0.1:9100/ready")]
pub(crate) struct ProbeArgs {
    /// Where to ask: plain HTTP
    #[arg(value_name = "http://ADDRESS:PORT/PATH")]
    url: String,
}

/// Runs the command.
pub(crate) async fn run(args: ProbeArgs) -> Result<()> {
    let (host, path) = parse(&args.url).ok_or_else(|| {
        BadUsage(anyhow!("\"{}\" is no address; write for example http://127.0.0.1:9100/ready", args.url))
    })?;
    let answer = timeout(WITHIN, ask(host, path)).await;
    let answer = answer.map_err(|_| anyhow!("{host} did not answer within {WITHIN:?}; is it the right port?"))??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_whitespace().nth(1).unwrap_or("nothing");
    if !status.starts_with('2') {
        bail!("{} answers {status}: {}", args.url, body.trim());
    }
    Printer::new(false).words(body.trim());
    Ok(())
}

/// Host with port, and path.
fn parse(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let clean = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
    (host.contains(':') && clean(rest)).then_some((host, if path.is_empty() { "/" } else { path }))
}

async fn ask(host: &str, path: &str) -> Result<String> {
    let stream = TcpStream::connect(host).await;
    let mut stream = stream.with_context(|| format!("nobody answers at {host}; was it started with --http {host}?"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port() {
        assert_eq!(parse("http://127.0.0.1:9100/ready"), Some(("127.0.0.1:9100", "/ready")));
        assert_eq!(parse("http://[::1]:9100"), Some(("[::1]:9100", "/")));
        for wrong in ["127.0.0.1:9100/ready", "https://a:1/", "http://a/", "http://a:1/x y"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
