//! A running `swarm-node api`.

use serde_json::Value;

use super::http::HttpClient;
use super::process::Process;
use super::swarm::TestSwarm;

/// A running `swarm-node api` that listens.
pub struct Api {
    /// The process.
    pub process: Process,
    /// A client without any headers.
    pub http: HttpClient,
}

impl Api {
    /// In front of `swarm`'s model, at a free port of this machine.
    pub fn start(swarm: &TestSwarm, options: &[&str]) -> Self {
        Self::of(swarm, "demo", options)
    }

    /// In front of `models`.
    pub fn of(swarm: &TestSwarm, models: &str, options: &[&str]) -> Self {
        let mut command = swarm.node("api");
        command.args(["--model", models, "--http", "127.0.0.1:0", "--json"]).args(options);
        let mut process = swarm.start("api", command);
        let listening = process.event("listening");
        let address = listening["address"].as_str().and_then(|address| address.strip_prefix("http://"));
        let address = address.and_then(|address| address.parse().ok());
        Self { process, http: HttpClient::new(address.expect("an address")) }
    }

    /// `/v1` with the scheme, as other tools are told.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.http.address)
    }

    /// A chat's answer.
    pub fn chat(&self, body: &Value) -> Value {
        self.http.post("/v1/chat/completions", body).expect(200)
    }

    /// A completion's answer.
    pub fn complete(&self, body: &Value) -> Value {
        self.http.post("/v1/completions", body).expect(200)
    }
}
