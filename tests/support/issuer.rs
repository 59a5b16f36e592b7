//! An issuer of licences on loopback, with the HTTP interface of AI Coach: signing secret, feed of revocations, remote
//! verification.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What the issuer knows.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    /// The newest signing secret, with its name.
    pub(crate) secret: Option<(String, String)>,
    /// What was revoked, in order.
    pub(crate) revoked: Vec<String>,
    /// What remote verification answers.
    pub(crate) verdict: Value,
    /// Answers nothing but errors.
    pub(crate) down: bool,
    /// Every request line, with whether it showed the API key.
    pub(crate) asked: Vec<(String, bool)>,
}

pub(crate) struct FakeIssuer {
    pub(crate) url: String,
    pub(crate) knowledge: Arc<Mutex<Knowledge>>,
}

impl FakeIssuer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let knowledge = Arc::new(Mutex::new(Knowledge::default()));
        let shared = Arc::clone(&knowledge);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { url, knowledge }
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Knowledge)) {
        change(&mut self.knowledge.lock().unwrap());
    }

    pub(crate) fn asked(&self, path: &str) -> Vec<(String, bool)> {
        let knowledge = self.knowledge.lock().unwrap();
        let asked = knowledge.asked.iter();
        asked
            .filter(|(line, _)| line.contains(path))
            .cloned()
            .collect()
    }
}

fn serve(stream: &TcpStream, shared: &Mutex<Knowledge>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let (mut length, mut key) = (0, false);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            key |= header == "authorization: bearer mcp_key";
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (status, answer) = answer(line.trim(), key, &mut shared.lock().unwrap());
        let text = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        let mut stream = stream;
        if stream.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(line: &str, key: bool, known: &mut Knowledge) -> (u16, Value) {
    known.asked.push((line.to_owned(), key));
    if known.down {
        return (503, json!({"error": "down"}));
    }
    if line.starts_with("GET /api/publisher/mcp/srv_1/signing-secret") {
        return match (&known.secret, key) {
            (Some((kid, secret)), true) => (
                200,
                json!({"keyId": "9b7f", "keyVersion": 1, "algorithm": "HS256", "signingSecret": secret, "kid": kid,
                    "verifyHint": "…"}),
            ),
            _ => (401, json!({"error": "unauthorized"})),
        };
    }
    if line.starts_with("GET /api/mcp/licenses/revoked?since=") && line.contains("&serverId=srv_1")
    {
        let since = line
            .split("since=")
            .nth(1)
            .and_then(|rest| rest.split('&').next());
        let from: usize = since.and_then(|since| since.parse().ok()).unwrap_or(0);
        let to = known.revoked.len();
        let page: Vec<Value> = known.revoked[from.min(to)..]
            .iter()
            .map(|id| json!({"id": id, "expiresAt": "2099-01-01T00:00:00Z", "reason": "refund"}))
            .collect();
        return (
            200,
            json!({"revocations": page, "nextCursor": to.to_string()}),
        );
    }
    if line.starts_with("POST /api/mcp/licenses/verify") {
        return (200, known.verdict.clone());
    }
    (404, json!({"error": "not_found"}))
}
