//! One server under one load, and the tables made of such cells.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nostr::PublicKey;
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;
use tollkeeper::transport::nostr::EncryptionMode;

use crate::clients::{Caller, Heard, Target};
use crate::floor::{Floor, floor, micros};
use crate::options::Options;
use crate::process::{Process, Used};
use crate::report;
use crate::server::ServerConfig;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cell {
    /// `library`, `library-sqlite`, `serve`, `node` or `bun`.
    pub(crate) server: String,
    pub(crate) paid: bool,
    pub(crate) encrypted: bool,
    pub(crate) in_flight: usize,
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    #[serde(flatten)]
    pub(crate) cell: Cell,
    pub(crate) calls: usize,
    pub(crate) failed: usize,
    pub(crate) calls_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) server_us: f64,
    pub(crate) relay_us: f64,
    pub(crate) clients_us: f64,
    pub(crate) peak_mib: f64,
}

/// The server of a cell; `None`, said aloud, if it cannot be had.
pub(crate) struct Serving {
    pub(crate) process: Process,
    /// The child of the binary, whose work is not the binary's.
    _folder: TempDir,
}

impl Serving {
    pub(crate) fn start(server: &str, relay: &str, encrypted: bool) -> Option<Self> {
        // Below the working directory: the disk is what is measured, and a folder for temporary files may be memory.
        let folder = tempfile::tempdir_in(".").expect("a folder");
        let encryption = if encrypted { "required" } else { "disabled" };
        let process = match server {
            "library" | "library-sqlite" => {
                let config = ServerConfig {
                    relay: relay.to_owned(),
                    encryption: encryption.parse::<EncryptionMode>().expect("a mode"),
                    ledger: (server == "library-sqlite")
                        .then(|| absolute(folder.path()).join("ledger.db")),
                    settles: Some(Duration::ZERO),
                };
                Process::role("server", &serde_json::to_value(config).expect("json"))
            }
            "serve" => serve(
                folder.path(),
                relay,
                encryption,
                &["--price", "tool:paid=7 sat"],
            ),
            "node" | "bun" => sdk(server, relay, encryption)?,
            other => panic!("{other}: no such server"),
        };
        Some(Self {
            process,
            _folder: folder,
        })
    }
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().expect("a folder")
}

/// The binary, with a stdio MCP server behind it.
pub(crate) fn serve(folder: &Path, relay: &str, encryption: &str, more: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollkeeper"));
    for name in [
        "TOLLKEEPER_RELAYS",
        "TOLLKEEPER_SECRET_KEY",
        "NWC_CONNECTION",
        "LNBITS_URL",
    ] {
        command.env_remove(name);
    }
    command
        .current_dir(folder)
        .env("TOLLKEEPER_HOME", absolute(folder))
        .env("TOLLKEEPER_LOG", "warn")
        .args([
            "serve",
            "--json",
            "--allow-fake",
            "--relay",
            relay,
            "--encryption",
            encryption,
        ])
        .args([
            "--pending-per-client",
            "10000",
            "--pending-total",
            "1000000",
        ])
        .args(more)
        .arg("--")
        .arg(std::env::current_exe().expect("this program"))
        .args(["role", "mcp", "-"]);
    Process::start(&mut command)
}

/// The ContextVM SDK.
fn sdk(runtime: &str, relay: &str, encryption: &str) -> Option<Process> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = |script: &str| {
        let output = Command::new("bash")
            .arg(checkout.join(script))
            .output()
            .ok()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            eprintln!(
                "{runtime}: SKIPPED ({script} failed: {})",
                why.trim().lines().last().unwrap_or_default()
            );
            return None;
        }
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    installed("tests/real/setup-contextvm")?;
    let program = match runtime {
        "bun" => installed("benches/load/setup-bun")?,
        _ => runtime.to_owned(),
    };
    let services = std::env::var_os("TOLLKEEPER_SERVICES")
        .map_or_else(|| checkout.join(".services"), PathBuf::from);
    let mut command = Command::new(program);
    command
        .env("TOLLKEEPER_SERVICES", absolute(&services.join("contextvm")))
        .env("LOG_LEVEL", "error")
        .arg(checkout.join("benches/load/sdk_server.mjs"))
        .arg(json!({ "relay": relay, "encryption": encryption }).to_string());
    Some(Process::start(&mut command))
}

/// Measures one cell.
pub(crate) async fn measure(options: &Options, cell: Cell) -> Option<Measured> {
    let relay = options.relay();
    let url = relay.text("url");
    let serving = Serving::start(&cell.server, &url, cell.encrypted)?;
    let target = Arc::new(Target {
        relay: url,
        server: PublicKey::parse(&serving.process.text("pubkey")).expect("a key"),
        tool: if cell.paid { "paid" } else { "free" },
        encrypted: cell.encrypted,
    });
    let mut callers = Vec::new();
    for _ in 0..cell.in_flight {
        callers.push(Caller::new(&target).await);
    }
    // What is compiled while it runs takes longer to become as fast as it gets.
    let warm_up = match cell.server.as_str() {
        "node" | "bun" => 4 * options.warm_up,
        _ => options.warm_up,
    };
    let (warm, mut callers) = phase(callers, warm_up).await;
    // As many as will be needed, from what the warm-up has shown, and some.
    let rate = warm.times.len() as f64 / warm_up.as_secs_f64();
    let each = (1.5 * rate * options.seconds.as_secs_f64()) as usize / cell.in_flight + 1;
    callers = sign_ahead(callers, each).await;

    let (server, between) = (serving.process.used(), relay.used());
    let mine = Used::of("self");
    let began = Instant::now();
    let (heard, _) = phase(callers, options.seconds).await;
    let lasted = began.elapsed();
    let used = |after: Used, before: Used| {
        micros(after.cpu.saturating_sub(before.cpu)) / heard.times.len().max(1) as f64
    };
    let after = serving.process.used();
    let mut times = heard.times.clone();
    times.sort_unstable();
    let at = |percent: usize| {
        let time = times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or_default();
        time.as_secs_f64() * 1e3
    };
    let measured = Measured {
        calls: times.len(),
        failed: heard.failed,
        calls_per_s: times.len() as f64 / lasted.min(options.seconds).as_secs_f64(),
        p50_ms: at(50),
        p99_ms: at(99),
        server_us: used(after, server),
        relay_us: used(relay.used(), between),
        clients_us: used(Used::of("self"), mine),
        peak_mib: after.peak_mib,
        cell,
    };
    report::line("load", &options.setting(), &measured);
    Some(measured)
}

async fn phase(callers: Vec<Caller>, time: Duration) -> (Heard, Vec<Caller>) {
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|mut caller| {
            tokio::spawn(async move {
                let heard = caller.call(1, time).await;
                (heard, caller)
            })
        })
        .collect();
    let (mut all, mut callers) = (Heard::default(), Vec::new());
    for task in tasks {
        let (mut heard, caller) = task.await.expect("a client");
        all.times.append(&mut heard.times);
        all.failed += heard.failed;
        callers.push(caller);
    }
    (all, callers)
}

async fn sign_ahead(callers: Vec<Caller>, count: usize) -> Vec<Caller> {
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|mut caller| {
            tokio::task::spawn_blocking(move || {
                caller.sign_ahead(count);
                caller
            })
        })
        .collect();
    let mut callers = Vec::new();
    for task in tasks {
        callers.push(task.await.expect("a client"));
    }
    callers
}

/// Every server under the same loads, in alternating rounds, with the floor beside them.
pub(crate) async fn compare(options: &Options) {
    let (mut floors, mut cells) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let least = tokio::task::spawn_blocking(|| floor(2000))
            .await
            .expect("the floor");
        report::line("floor", &options.setting(), &least);
        floors.push(least);
        for (encrypted, paid) in [(false, true), (true, true), (false, false), (true, false)] {
            for server in &options.servers {
                let cell = Cell {
                    server: server.clone(),
                    paid,
                    encrypted,
                    in_flight: options.in_flight,
                };
                cells.extend(measure(options, cell).await);
            }
        }
    }
    report::comparison(options, &floors, &cells);
}

/// What the durable ledger costs at 64 in flight, in rounds that alternate.
pub(crate) async fn durability(options: &Options) {
    let mut cells = Vec::new();
    for _ in 0..options.rounds.max(3) {
        for server in ["library", "library-sqlite"] {
            let cell = Cell {
                server: server.to_owned(),
                paid: true,
                encrypted: false,
                in_flight: 64,
            };
            cells.extend(measure(options, cell).await);
        }
    }
    report::durability(options, &cells);
}

impl Floor {
    /// The floor of a paid call.
    pub(crate) fn paid(&self, encrypted: bool) -> f64 {
        if encrypted {
            self.encrypted_us
        } else {
            self.plain_us
        }
    }
}
