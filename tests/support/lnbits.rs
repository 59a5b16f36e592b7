//! A real LNbits with play money, from PyPI, in a process of its own that ends with the tests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long it may take to come up, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running LNbits.
pub(crate) struct Lnbits {
    pub(crate) url: String,
    port: u16,
    admin: String,
    /// It runs until this is closed.
    _until: Mutex<ChildStdin>,
}

/// A wallet with an account of its own.
#[derive(Clone)]
pub(crate) struct Wallet {
    id: String,
    pub(crate) invoice_key: String,
    pub(crate) admin_key: String,
}

impl Lnbits {
    /// The one that all tests of this process share, with what it said to `before` when it was not set up yet; `None`,
    /// said aloud, where it cannot be installed.
    pub(crate) fn get() -> Option<&'static Self> {
        static RUNNING: OnceLock<Result<Lnbits, String>> = OnceLock::new();
        match RUNNING.get_or_init(|| Self::start().and_then(Self::set_up)) {
            Ok(lnbits) => Some(lnbits),
            Err(reason) => {
                skipped(reason);
                None
            }
        }
    }

    /// Another one, that nobody has set up.
    pub(crate) fn fresh() -> Option<Self> {
        match Self::start() {
            Ok(lnbits) => Some(lnbits),
            Err(reason) => {
                skipped(&reason);
                None
            }
        }
    }

    fn start() -> Result<Self, String> {
        let folder = installed()?;
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|error| error.to_string())?
            .port();
        let data = std::env::temp_dir().join(format!("tollkeeper-lnbits-{port}"));
        let mut child = Command::new("bash")
            .arg(script("lnbits.sh"))
            .arg(folder)
            .arg(port.to_string())
            .arg(data)
            .arg("until-eof")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let until = child.stdin.take().unwrap();
        let started = Instant::now();
        while ask(port, "GET", "/api/v1/health", &[], None).is_err() {
            if started.elapsed() > PATIENCE || child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err("LNbits was installed and does not start".to_owned());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(Self {
            url: format!("http://127.0.0.1:{port}"),
            port,
            admin: String::new(),
            _until: Mutex::new(until),
        })
    }

    fn set_up(mut self) -> Result<Self, String> {
        let body = json!({ "username": "admin", "password": "secret1234", "password_repeat": "secret1234" });
        let (status, answer) = self.ask("PUT", "/api/v1/auth/first_install", &[], Some(&body));
        let token = answer["access_token"].as_str();
        self.admin = token.ok_or(format!("first install: {status}"))?.to_owned();
        Ok(self)
    }

    /// A new wallet with `sats` in it.
    pub(crate) fn wallet(&self, name: &str, sats: u64) -> Wallet {
        let (status, made) = self.ask(
            "POST",
            "/api/v1/account",
            &[],
            Some(&json!({ "name": name })),
        );
        assert!((200..300).contains(&status), "{made}");
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        let wallet = Wallet {
            id: text("id"),
            invoice_key: text("inkey"),
            admin_key: text("adminkey"),
        };
        if sats > 0 {
            let bearer = format!("Bearer {}", self.admin);
            let body = json!({ "id": wallet.id, "amount": sats });
            let (status, answer) = self.ask(
                "PUT",
                "/users/api/v1/balance",
                &[("Authorization", &bearer)],
                Some(&body),
            );
            assert_eq!(status, 200, "{answer}");
        }
        assert_eq!(self.balance(&wallet), sats * 1000);
        wallet
    }

    /// How much is in `wallet`, in millisatoshis.
    pub(crate) fn balance(&self, wallet: &Wallet) -> u64 {
        let keys = [("X-Api-Key", wallet.invoice_key.as_str())];
        let (status, answer) = self.ask("GET", "/api/v1/wallet", &keys, None);
        assert_eq!(status, 200, "{answer}");
        answer["balance"].as_u64().unwrap()
    }

    /// What `wallet` says of a payment, read in a way that changes nothing.
    pub(crate) fn row(&self, wallet: &Wallet, payment_hash: &str) -> Value {
        let path = format!("/api/v1/payments/paginated?payment_hash={payment_hash}");
        let keys = [("X-Api-Key", wallet.invoice_key.as_str())];
        let (status, mut answer) = self.ask("GET", &path, &keys, None);
        assert_eq!(status, 200, "{answer}");
        answer["data"][0].take()
    }

    /// How many payments and invoices `wallet` has in its books.
    pub(crate) fn rows(&self, wallet: &Wallet) -> u64 {
        let keys = [("X-Api-Key", wallet.invoice_key.as_str())];
        let (_, answer) = self.ask("GET", "/api/v1/payments/paginated?limit=1", &keys, None);
        answer["total"].as_u64().unwrap()
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> (u16, Value) {
        ask(self.port, method, path, headers, body).expect("LNbits must answer")
    }
}

/// Says that something was not tested, or fails where everything must be.
fn skipped(reason: &str) {
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        panic!("tests/real/setup_lnbits.sh: {reason}");
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not `eprintln!`, which the harness keeps to itself while a test passes.
    let _ = writeln!(std::io::stderr(), "\n{test}: SKIPPED (LNbits: {reason})");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/real")
        .join(name)
}

/// The folder that LNbits is installed in.
fn installed() -> Result<PathBuf, String> {
    let output = Command::new("bash")
        .arg(script("setup_lnbits.sh"))
        .output()
        .map_err(|error| format!("bash: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said
            .trim()
            .lines()
            .last()
            .unwrap_or("it says nothing")
            .to_owned());
    }
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(PathBuf::from(folder))
}

/// One question over HTTP; status and body as JSON.
fn ask(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> std::io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!(
        "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((
        status.unwrap_or_default(),
        serde_json::from_str(body).unwrap_or_default(),
    ))
}
