//! The gateway's own MCP session with a child: it is opened once, whoever the clients are and whether or not they open
//! sessions of their own.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::ChildCommand;
use super::asker::{Asker, reply_to_child};
use super::catalogue::Catalogue;
use super::process::Process;
use crate::error::{Error, Result};
use crate::gateway::output;
use crate::wire::{Message, method, raw};

/// The newest version of MCP that the gateway knows. A server answers with the one that it speaks.
const NEWEST: &str = "2025-11-25";
/// The versions before it. They differ in what is allowed, not in how it is said, so a server that speaks a newer one is
/// understood by a client that asks for an older one.
const OLDER: [&str; 3] = ["2025-06-18", "2025-03-26", "2024-11-05"];
/// How long a child may take to answer the first request: package runners download before they run.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// What a child says about itself when it is initialised.
#[derive(Debug, Clone)]
pub(crate) struct ServerIntroduction {
    result: Value,
}

impl ServerIntroduction {
    /// The whole `InitializeResult`.
    pub(crate) fn result(&self) -> &Value {
        &self.result
    }

    /// The answer to a client's own `initialize` with `params`, of a child that is shared if `shared`.
    pub(super) fn for_client(
        &self,
        params: Option<&RawValue>,
        shared: bool,
    ) -> Result<Box<RawValue>> {
        let mut result = self.result.clone();
        let asked: Option<Value> =
            params.and_then(|params| serde_json::from_str(params.get()).ok());
        let asked = asked
            .as_ref()
            .and_then(|params| params.get("protocolVersion"))
            .and_then(Value::as_str);
        let spoken = result
            .get("protocolVersion")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if let Some(asked) = asked
            && OLDER.contains(&asked)
            && asked < spoken
        {
            result["protocolVersion"] = asked.into();
        }
        if shared && let Some(Value::Object(capabilities)) = result.get_mut("capabilities") {
            withhold(capabilities);
        }
        raw(&result)
    }
}

/// What belongs to one client cannot be had from a child that serves several: log messages say nothing of whom they are
/// about, and tasks are open to whoever lists them.
fn withhold(capabilities: &mut Map<String, Value>) {
    capabilities.remove("logging");
    capabilities.remove("tasks");
}

/// A child that is ready for requests.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) process: Process,
    pub(super) asker: Asker,
    pub(super) introduction: Arc<ServerIntroduction>,
}

impl Session {
    /// Starts `command` and initialises it.
    pub(super) async fn open(command: &ChildCommand) -> Result<Self> {
        let mut process = Process::spawn(command)?;
        let asker = Asker::new(&process.to);
        let introduced = with_patience(introduce(&asker));
        match pumped(&mut process, &asker, introduced).await {
            Ok(result) => Ok(Self {
                process,
                asker,
                introduction: Arc::new(ServerIntroduction { result }),
            }),
            Err(error) => {
                process.stop().await;
                Err(error)
            }
        }
    }

    /// Asks for what the child offers. Only before anybody else talks to it.
    pub(super) async fn catalogue(&mut self) -> Result<Catalogue> {
        let asking = async { Ok(Catalogue::ask(&self.asker, self.introduction.result()).await) };
        pumped(&mut self.process, &self.asker, asking).await
    }
}

/// Says now and then what it is that takes so long.
async fn with_patience<T>(work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    for seconds in [3, 27, 30] {
        let waited = tokio::time::timeout(Duration::from_secs(seconds), &mut work);
        if let Ok(done) = waited.await {
            return done;
        }
        output::remark(
            "waiting for the server program to answer; a package runner may still be downloading it",
        );
    }
    work.await
}

async fn introduce(asker: &Asker) -> Result<Value> {
    let params = json!({
        "protocolVersion": NEWEST,
        "capabilities": {},
        "clientInfo": { "name": "tollkeeper", "version": env!("CARGO_PKG_VERSION") },
    });
    let result = asker
        .ask(method::INITIALIZE, &params, START_PATIENCE)
        .await?;
    let result: Value = serde_json::from_str(result.get()).map_err(|source| {
        Error::wire("the server's introduction cannot be read").with_source(source)
    })?;
    if !result.is_object() {
        return Err(Error::wire("the server's introduction is not an object"));
    }
    asker.tell(method::INITIALIZED).await?;
    Ok(result)
}

/// Carries what the child says to `asker` until `work` is done.
async fn pumped<T>(
    process: &mut Process,
    asker: &Asker,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            message = process.from.recv() => match message {
                Some(Message::Response(response)) => {
                    let _ = asker.answer(response);
                }
                Some(Message::Request(request)) => {
                    let _ = process.to.try_send(reply_to_child(request).into());
                }
                Some(Message::Notification(_)) => {}
                None => return Err(Error::closed(
                    "the server ended before it was ready (--log debug shows what it wrote on stderr)",
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(asked: &str, spoken: &str) -> Value {
        let introduction = ServerIntroduction {
            result: json!({"protocolVersion": spoken, "capabilities": {"logging": {}, "tools": {}}, "extra": 1}),
        };
        let params = raw(&json!({ "protocolVersion": asked })).unwrap();
        serde_json::from_str(introduction.for_client(Some(&params), true).unwrap().get()).unwrap()
    }

    #[test]
    fn a_client_gets_the_version_that_it_knows_and_never_a_newer_one_than_the_child_speaks() {
        for (asked, spoken, answered) in [
            ("2025-06-18", "2025-06-18", "2025-06-18"),
            ("2024-11-05", "2025-06-18", "2024-11-05"),
            ("2025-11-25", "2025-06-18", "2025-06-18"),
            ("1999-01-01", "2025-06-18", "2025-06-18"),
            ("2099-01-01", "2024-11-05", "2024-11-05"),
        ] {
            assert_eq!(
                answer(asked, spoken)["protocolVersion"],
                answered,
                "{asked}"
            );
        }
    }

    #[test]
    fn the_introduction_passes_whole_but_for_what_cannot_be_shared() {
        let answer = answer("2025-06-18", "2025-06-18");
        assert_eq!(answer["capabilities"], json!({"tools": {}}));
        assert_eq!(answer["extra"], 1);
    }
}
