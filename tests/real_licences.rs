//! Licences between us and the JWT libraries that others verify and sign with: npm's `jsonwebtoken` and PyJWT.
//!
//! `tests/real/setup-jwt` installs them, once; these tests run it when need be. Where that cannot be done, for want of a network
//! say, they are skipped and say so, but not in CI.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/binary.rs"]
mod binary;
#[allow(dead_code, reason = "shared with the tests of real wallets")]
#[path = "support/counterparts.rs"]
mod counterparts;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tollkeeper::entitlement::licence::{Key, LicenceSigner, LicenceTerms};
use tollkeeper::payment::{Clock, SystemClock};

use binary::{Relay, Scratch, Server};

const SETUP: &str = "tests/real/setup-jwt";
const FIRST: &str = "0123456789abcdef0123456789abcdef";
const SECOND: &str = "fedcba9876543210fedcba9876543210";

/// A library in a process of its own, which answers one question.
struct Library {
    interpreter: PathBuf,
    script: &'static str,
    folder: PathBuf,
}

impl Library {
    /// Both libraries; `None`, said aloud, where they cannot be installed.
    fn both() -> Option<[Self; 2]> {
        static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
        let installed = INSTALLED.get_or_init(|| counterparts::set_up(SETUP).map(drop));
        if let Err(reason) = installed {
            return counterparts::skipped(SETUP, reason);
        }
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        let services = std::env::var_os("TOLLKEEPER_SERVICES")
            .map_or_else(|| checkout.join(".services"), PathBuf::from);
        let folder = services.join("jwt").canonicalize().unwrap();
        let python = folder.join("python/bin/python");
        let library = |interpreter: PathBuf, script| Self {
            interpreter,
            script,
            folder: folder.clone(),
        };
        Some([
            library("node".into(), "licences.mjs"),
            library(python, "licences.py"),
        ])
    }

    fn ask(&self, question: &Value) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
        let output = Command::new(&self.interpreter)
            .env("TOLLKEEPER_JWT", &self.folder)
            .arg(script.join(self.script))
            .arg(question.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", self.script);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn sign(&self, claims: &Value, kid: &str, secret: &str, algorithm: &str) -> String {
        let sign = json!({"claims": claims, "kid": kid, "secret": secret, "algorithm": algorithm});
        let answer = self.ask(&json!({ "sign": sign }));
        answer["token"].as_str().unwrap().to_owned()
    }

    fn verify(&self, token: &str, secret: &str) -> Value {
        let verify = json!({"token": token, "secret": secret, "issuer": "aicoach.pw", "audience": "mcp_server:srv_1"});
        self.ask(&json!({ "verify": verify }))
    }
}

fn claims(id: &str, expires_at: u64) -> Value {
    json!({"iss": "aicoach.pw", "sub": "user_42", "aud": "mcp_server:srv_1", "jti": id, "purchaseId": "01HXKY",
        "serverId": "srv_1", "scope": "mcp:invoke", "iat": 1_731_000_000, "exp": expires_at})
}

/// The whole way: another library signs, the real server verifies, under both keys of a rotation.
#[test]
fn what_other_libraries_sign_opens_the_gate() {
    let Some(libraries) = Library::both() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let keys = json!([{"kid": "srv_1:1", "signingSecret": FIRST}, {"kid": "srv_1:2", "signingSecret": SECOND}]);
    scratch.write("keys.json", &keys.to_string());
    let config = scratch.write(
        "shop.toml",
        "[[price]]\ncapability = \"tool:add\"\namount = 10\n[entitlements.licence]\nrequired = true\n[[entitlements.licence.issuer]]\nserver_id = \"srv_1\"\n\
         keys_file = \"keys.json\"\n",
    );
    let config = config.display().to_string();
    let server = Server::start(&scratch, &relay, &["--config", &config]);
    let call = |token: &str| {
        let file = scratch.write("licence", token).display().to_string();
        let words = ["tool:add", "a=1", "b=2", "--licence-file", &file];
        server.call(&scratch, "a", &words)
    };
    for library in &libraries {
        for (kid, secret) in [("srv_1:1", FIRST), ("srv_1:2", SECOND)] {
            let token = library.sign(&claims(kid, 4_102_444_800), kid, secret, "HS256");
            let called = call(&token);
            assert_eq!(called.text(), "3", "{} {kid}", library.script);
            assert_eq!(called.last["paid"]["amount"], 0);
        }
        // And what they sign otherwise does not.
        let good = claims("x", 4_102_444_800);
        for (token, reason) in [
            (
                library.sign(&good, "srv_1:1", SECOND, "HS256"),
                "invalid signature",
            ),
            (
                library.sign(&good, "srv_1:1", FIRST, "HS512"),
                "invalid algorithm",
            ),
            (
                library.sign(&claims("x", 1_731_000_001), "srv_1:1", FIRST, "HS256"),
                "jwt expired",
            ),
            (
                library.sign(&good, "srv_1:3", FIRST, "HS256"),
                "unknown kid",
            ),
        ] {
            let refused = call(&token);
            assert_eq!(refused.code, Some(1), "{} {reason}", library.script);
            let said = serde_json::to_string(&refused.lines).unwrap();
            assert!(said.contains(reason), "{} {reason}: {said}", library.script);
        }
    }
}

#[test]
fn what_we_sign_is_verified_by_other_libraries() {
    let Some(libraries) = Library::both() else {
        return;
    };
    let key = Key::new(FIRST.as_bytes()).unwrap();
    let signer = LicenceSigner::new("aicoach.pw", "srv_1", 1, key).unwrap();
    let terms = LicenceTerms::new("tk_1", "01HXKY", SystemClock.now());
    let token = signer.sign(&terms).unwrap();
    for library in &libraries {
        let claims = &library.verify(token.reveal(), FIRST)["claims"];
        assert_eq!(claims["jti"], "tk_1", "{}", library.script);
        assert_eq!(claims["serverId"], "srv_1");
        assert_eq!(claims["scope"], "mcp:invoke");
        let refused = library.verify(token.reveal(), SECOND);
        assert!(refused["error"].is_string(), "{refused}");
    }
    // The words for what is wrong are those of the library that publishers are told to use.
    let [node, _] = &libraries;
    assert_eq!(
        node.verify(token.reveal(), SECOND)["error"],
        "invalid signature"
    );
    assert_eq!(node.verify("x", FIRST)["error"], "jwt malformed");
}
