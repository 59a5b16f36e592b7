//! Licences as they should be, and every way in which they should not be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::*;
use crate::ledger::{LicenceBooks, MemoryLedger, Revocation};
use crate::payment::{
    BearerToken, ClientPubkey, Clock, Invocation, InvocationIdentity, PricedCapability,
    RequestEventId, Timestamp,
};

const FIRST: &str = "0123456789abcdef0123456789abcdef";
const SECOND: &str = "fedcba9876543210fedcba9876543210";
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn key(secret: &str) -> Key {
    Key::new(secret.as_bytes()).unwrap()
}

fn client(n: u8) -> ClientPubkey {
    ClientPubkey::from_bytes([n; 32])
}

/// The claims of the seed, in its order.
fn claims() -> Value {
    json!({
        "iss": "aicoach.pw", "sub": "user_42", "aud": "mcp_server:srv_1", "jti": "01HXKZ", "purchaseId": "01HXKY",
        "serverId": "srv_1", "scope": "mcp:invoke", "iat": 1_731_000_000, "exp": 4_102_444_800u64,
    })
}

fn with(change: &[(&str, Value)]) -> Value {
    let mut claims = claims();
    for (name, value) in change {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(*name),
            value => claims
                .as_object_mut()
                .unwrap()
                .insert((*name).to_owned(), value.clone()),
        };
    }
    claims
}

fn signed(claims: &Value) -> String {
    token::sign(claims, "srv_1:1", &key(FIRST))
}

fn claim(token: &str, n: u8) -> EntitlementClaim {
    let invocation = Invocation::new(
        client(n),
        RequestEventId::from_bytes([n; 32]),
        "tools/call".to_owned(),
        Some("search".to_owned()),
        Value::Null,
        InvocationIdentity::from_bytes([n; 32]),
    );
    let listed: PricedCapability = "tool:search=10 sat".parse().unwrap();
    let tokens = BearerToken::new(token).into_iter().collect();
    EntitlementClaim::new(invocation, Arc::new(listed), NOW).with_tokens(tokens)
}

fn aicoach() -> IssuerBuilder {
    let ring = Keyring::new()
        .with("srv_1:1", key(FIRST))
        .with("srv_1:2", key(SECOND));
    Issuer::builder("aicoach.pw", "srv_1")
        .keys(ring)
        .clock(Arc::new(At(NOW)))
}

async fn licences(issuer: IssuerBuilder) -> Licences {
    let books = Arc::new(MemoryLedger::new());
    Licences::new(vec![issuer.start(books).await.unwrap()])
}

/// `covered`, or the error as it is told.
async fn verdict(licences: &Licences, token: &str, n: u8) -> String {
    match licences.examine(&claim(token, n)).await {
        Entitled::Covered(_) => "covered".to_owned(),
        Entitled::NotCovered(Some(said)) => match said["reason"].as_str() {
            Some(reason) => format!("{}: {reason}", said["error"].as_str().unwrap()),
            None => said["error"].as_str().unwrap().to_owned(),
        },
        Entitled::Unknown(_) => "unknown".to_owned(),
        other => panic!("{other:?}"),
    }
}

#[derive(Debug)]
struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// The vectors of the specification, made by another implementation.
#[tokio::test]
async fn tokens_of_others_verify_and_ours_are_the_same_bytes() {
    let header = |kid: &str| format!(r#"{{"alg":"HS256","typ":"JWT","kid":"{kid}"}}"#);
    let body = r#"{"iss":"aicoach.pw","sub":"user_42","aud":"mcp_server:srv_1","jti":"01HXKZ","purchaseId":"01HXKY","serverId":"srv_1","scope":"mcp:invoke","iat":1731000000,"exp":4102444800}"#;
    let licences = licences(aicoach()).await;
    for (kid, signature) in [
        ("srv_1:1", "uP9IAqrU_xGZOOTpGs17GHR-xhceUV3FTszFb9X44t8"),
        ("srv_1:2", "KsEskDNDwN5XgWXsHA9XF8Mz1i6EvGO5WYdLzQlEwmU"),
    ] {
        let [header, body] = [header(kid).as_str(), body].map(|part| URL_SAFE_NO_PAD.encode(part));
        let token = format!("{header}.{body}.{signature}");
        assert_eq!(verdict(&licences, &token, 1).await, "covered", "{kid}");
    }
}

#[tokio::test]
async fn claims_are_told_to_the_handler_and_the_licence_is_named_in_the_books() {
    let licences = licences(aicoach()).await;
    let Entitled::Covered(cover) = licences.examine(&claim(&signed(&claims()), 1)).await else {
        panic!()
    };
    assert_eq!(cover.why, "licence 01HXKZ of aicoach.pw");
    assert_eq!(cover.claims.unwrap()["sub"], "user_42");
}

#[tokio::test]
async fn every_wrong_claim_has_its_error() {
    let licences = licences(aicoach()).await;
    let seconds = NOW.as_secs();
    for (change, expected) in [
        (
            ("iss", json!("evil")),
            "invalid_token: jwt issuer invalid. expected: aicoach.pw",
        ),
        (
            ("aud", json!("mcp_server:srv_2")),
            "invalid_token: jwt audience invalid. expected: mcp_server:srv_1",
        ),
        (
            ("aud", Value::Null),
            "invalid_token: jwt audience invalid. expected: mcp_server:srv_1",
        ),
        (("aud", json!(["x", "mcp_server:srv_1"])), "covered"),
        (
            ("aud", json!(["x", "mcp_server:srv_11"])),
            "invalid_token: jwt audience invalid. expected: mcp_server:srv_1",
        ),
        (("serverId", json!("srv_2")), "server_mismatch"),
        (("serverId", Value::Null), "server_mismatch"),
        (("exp", json!(seconds - 61)), "invalid_token: jwt expired"),
        (("exp", json!(seconds - 59)), "covered"),
        (("exp", json!("never")), "invalid_token: exp is missing"),
        (("exp", json!(-1)), "invalid_token: exp is missing"),
        (("exp", json!(1e300)), "invalid_token: exp is missing"),
        (("exp", Value::Null), "invalid_token: exp is missing"),
        (
            ("nbf", json!(seconds + 61)),
            "invalid_token: jwt not active",
        ),
        (("nbf", json!(seconds + 59)), "covered"),
        (
            ("iat", json!(seconds + 3600)),
            "invalid_token: jwt not active",
        ),
        (("iat", json!("x")), "invalid_token: jwt not active"),
        (("iat", Value::Null), "covered"),
        (
            ("scope", json!("mcp:read")),
            "invalid_token: insufficient scope",
        ),
        (
            ("scope", json!("mcp:invoker")),
            "invalid_token: insufficient scope",
        ),
        (("scope", json!("")), "invalid_token: insufficient scope"),
        (("scope", json!(7)), "invalid_token: insufficient scope"),
        (("scope", json!("mcp:read mcp:invoke")), "covered"),
        (("scope", Value::Null), "covered"),
        (("jti", Value::Null), "invalid_token: jti is missing"),
        (("cnf", json!({"nostr": client(1)})), "covered"),
        (
            ("cnf", json!({"nostr": client(2)})),
            "invalid_token: not the holder of this licence",
        ),
        (
            ("cnf", json!({"jkt": "x"})),
            "invalid_token: cnf cannot be read",
        ),
        (("capabilities", json!(["tool:sea*"])), "covered"),
        (
            ("capabilities", json!("tool:other")),
            "invalid_token: not for this capability",
        ),
        (
            ("capabilities", json!([])),
            "invalid_token: not for this capability",
        ),
    ] {
        let token = signed(&with(std::slice::from_ref(&change)));
        assert_eq!(verdict(&licences, &token, 1).await, expected, "{change:?}");
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of forgeries")]
async fn whatever_is_forged_is_refused() {
    let licences = licences(aicoach()).await;
    let good = signed(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, body, signature] = [parts[0], parts[1], parts[2]];
    let as_header = |header: Value| {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let signed = format!("{header}.{body}");
        let mut mac = key(FIRST).mac();
        hmac::Mac::update(&mut mac, signed.as_bytes());
        let mac = hmac::Mac::finalize(mac).into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
    };
    let other_body = URL_SAFE_NO_PAD.encode(with(&[("jti", json!("x"))]).to_string());
    let mut flipped = signature.to_owned();
    flipped.replace_range(0..1, if signature.starts_with('A') { "B" } else { "A" });
    for (token, expected) in [
        (good.clone(), "covered"),
        (
            format!("{header}.{other_body}.{signature}"),
            "invalid_token: invalid signature",
        ),
        (
            format!("{header}.{body}.{flipped}"),
            "invalid_token: invalid signature",
        ),
        (
            format!("{header}.{body}.{}", &signature[..signature.len() - 3]),
            "invalid_token: invalid signature",
        ),
        (
            format!("{header}.{body}."),
            "invalid_token: invalid signature",
        ),
        (format!("{header}.{body}"), "invalid_token: jwt malformed"),
        (format!("{good}."), "invalid_token: jwt malformed"),
        (format!("{good}.x"), "invalid_token: jwt malformed"),
        (
            format!("{header}.{body}.{signature}="),
            "invalid_token: jwt malformed",
        ),
        ("x".to_owned(), "invalid_token: jwt malformed"),
        ("..".to_owned(), "invalid_token: invalid token"),
        (
            token::sign(&claims(), "srv_1:1", &key(SECOND)),
            "invalid_token: invalid signature",
        ),
        (
            token::sign(&claims(), "srv_1:3", &key(FIRST)),
            "invalid_token: unknown kid",
        ),
        (
            token::sign(&claims(), "srv_2:1", &key(FIRST)),
            "server_mismatch",
        ),
        (
            token::sign(&claims(), "", &key(FIRST)),
            "invalid_token: kid is missing",
        ),
        // Another algorithm, properly signed with our secret: what is confused is refused.
        (
            as_header(json!({"alg": "none", "kid": "srv_1:1"})),
            "invalid_token: invalid algorithm",
        ),
        (
            as_header(json!({"alg": "None", "kid": "srv_1:1"})),
            "invalid_token: invalid algorithm",
        ),
        (
            as_header(json!({"alg": "hs256", "kid": "srv_1:1"})),
            "invalid_token: invalid algorithm",
        ),
        (
            as_header(json!({"alg": "HS512", "kid": "srv_1:1"})),
            "invalid_token: invalid algorithm",
        ),
        (
            as_header(json!({"alg": "RS256", "kid": "srv_1:1"})),
            "invalid_token: invalid algorithm",
        ),
        (
            as_header(json!({"kid": "srv_1:1"})),
            "invalid_token: invalid token",
        ),
        (
            as_header(json!({"alg": "HS256"})),
            "invalid_token: kid is missing",
        ),
        (
            as_header(json!({"alg": "HS256", "kid": "srv_1:1", "typ": "JWE"})),
            "invalid_token: invalid token",
        ),
        (
            as_header(json!({"alg": "HS256", "kid": "srv_1:1", "crit": ["exp"]})),
            "invalid_token: invalid token",
        ),
        (
            as_header(json!({"alg": "HS256", "kid": "srv_1:1"})),
            "covered",
        ),
    ] {
        assert_eq!(verdict(&licences, &token, 1).await, expected, "{token}");
    }
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT","kid":"srv_1:1"}"#);
    assert_eq!(
        verdict(&licences, &format!("{none}.{body}."), 1).await,
        "invalid_token: invalid algorithm"
    );
    let twice = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","alg":"HS256","kid":"srv_1:1"}"#);
    assert_eq!(
        verdict(&licences, &format!("{twice}.{body}.{signature}"), 1).await,
        "invalid_token: invalid token"
    );
}

#[tokio::test]
async fn nothing_presented_is_missing_and_what_was_exposed_does_not_count() {
    let licences = licences(aicoach()).await;
    assert_eq!(verdict(&licences, "", 1).await, "missing_token");
    let mut exposed = claim("", 1);
    exposed.exposed = true;
    let Entitled::NotCovered(Some(said)) = licences.examine(&exposed).await else {
        panic!()
    };
    assert_eq!(
        said,
        json!({"error": "invalid_token", "reason": "sent in the clear"})
    );
}

#[tokio::test]
async fn where_a_licence_is_required_nothing_else_opens() {
    let licences = licences(aicoach()).await.required(true);
    let Entitled::Refused(refusal) = licences.examine(&claim("", 1)).await else {
        panic!()
    };
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (-32041, "Licence required")
    );
    assert_eq!(
        refusal.data.unwrap(),
        json!({"error": "missing_token", "httpStatus": 401, "licence": {"error": "missing_token"}})
    );
    let others = licences.covering(vec!["tool:other".parse().unwrap()]);
    assert!(matches!(
        others.examine(&claim("", 1)).await,
        Entitled::NotCovered(None)
    ));
}

#[tokio::test]
async fn a_licence_without_a_holder_is_for_the_first_clients_that_come_with_it() {
    let books: Arc<MemoryLedger> = Arc::default();
    let start = || async {
        let issuer = aicoach().most_clients(2).start(Arc::clone(&books) as _);
        Licences::new(vec![issuer.await.unwrap()])
    };
    let before = start().await;
    let token = signed(&claims());
    assert_eq!(verdict(&before, &token, 1).await, "covered");
    assert_eq!(verdict(&before, &token, 2).await, "covered");
    let refused = "invalid_token: in use by too many clients";
    assert_eq!(verdict(&before, &token, 3).await, refused);
    // A restart does not make room.
    let after = start().await;
    assert_eq!(verdict(&after, &token, 3).await, refused);
    assert_eq!(verdict(&after, &token, 1).await, "covered");
}

#[tokio::test]
async fn of_two_issuers_the_one_whose_licence_it_is_has_the_word() {
    let books: Arc<MemoryLedger> = Arc::default();
    let own = Issuer::builder("shop", "srv_9").keys(Keyring::new().with("srv_9:1", key(SECOND)));
    let licences = Licences::new(vec![
        aicoach().start(Arc::clone(&books) as _).await.unwrap(),
        own.start(books).await.unwrap(),
    ]);
    let terms = LicenceTerms::new("1", "p", NOW).held_by(client(1));
    let signer = LicenceSigner::new("shop", "srv_9", 1, key(SECOND)).unwrap();
    let token = signer.sign(&terms).unwrap();
    assert_eq!(verdict(&licences, token.reveal(), 1).await, "covered");
    assert_eq!(
        verdict(&licences, token.reveal(), 2).await,
        "invalid_token: not the holder of this licence"
    );
    assert_eq!(verdict(&licences, &signed(&claims()), 1).await, "covered");
    let expired = signed(&with(&[("exp", json!(1))]));
    assert_eq!(
        verdict(&licences, &expired, 1).await,
        "invalid_token: jwt expired"
    );
}

#[tokio::test]
async fn a_secret_without_a_name_verifies_any_version() {
    let issuer =
        Issuer::builder("aicoach.pw", "srv_1").keys(Keyring::new().with_unnamed(key(FIRST)));
    let licences = licences(issuer).await;
    let token = token::sign(&claims(), "srv_1:7", &key(FIRST));
    assert_eq!(verdict(&licences, &token, 1).await, "covered");
    let token = token::sign(&claims(), "srv_1:7", &key(SECOND));
    assert_eq!(
        verdict(&licences, &token, 1).await,
        "invalid_token: invalid signature"
    );
}

/// An issuer that the test plays: its feed in pages, its keys, its opinion.
#[derive(Debug, Default)]
struct Played {
    revoked: Mutex<Vec<Revocation>>,
    asked_since: Mutex<Vec<String>>,
    keys: Mutex<Keyring>,
    down: AtomicBool,
    /// Names no place to read on from.
    no_cursor: bool,
    server_time: Option<Timestamp>,
    yes: bool,
}

impl Played {
    fn revoke(&self, id: &str) {
        let expires_at = Timestamp::from_secs(4_102_444_800);
        self.revoked.lock().unwrap().push(Revocation {
            id: id.to_owned(),
            expires_at,
        });
    }

    fn reach(&self) -> Result<()> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(Error::transport("down")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl RevocationFeed for Played {
    async fn page(&self, since: &str) -> Result<FeedPage> {
        self.reach()?;
        self.asked_since.lock().unwrap().push(since.to_owned());
        let revoked = self.revoked.lock().unwrap();
        let from = since.parse().unwrap_or(0).min(revoked.len());
        let to = (from + 2).min(revoked.len());
        Ok(FeedPage {
            revoked: revoked[from..to].to_vec(),
            next: (!self.no_cursor).then(|| to.to_string()),
            server_time: self.server_time,
        })
    }
}

#[async_trait]
impl KeySource for Played {
    async fn fetch(&self) -> Result<Keyring> {
        self.reach()?;
        Ok(self.keys.lock().unwrap().clone())
    }
}

#[async_trait]
impl VerifyRemotely for Played {
    async fn verify(&self, _token: &str) -> Result<Opinion> {
        self.reach()?;
        Ok(match (self.yes, claims()) {
            (true, Value::Object(claims)) => Ok(claims),
            _ => Err(LicenceError::Revoked),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_revoked_stays_revoked_over_a_restart_and_the_feed_is_read_on_from_where_it_was() {
    let played = Arc::new(Played::default());
    let books: Arc<MemoryLedger> = Arc::default();
    for id in ["a", "01HXKZ", "b", "c", "d"] {
        played.revoke(id);
    }
    let start = || async {
        let issuer = aicoach()
            .feed(played.clone())
            .start(Arc::clone(&books) as _);
        Licences::new(vec![issuer.await.unwrap()])
    };
    let before = start().await;
    before.issuers()[0].read_feed().await.unwrap();
    assert_eq!(verdict(&before, &signed(&claims()), 1).await, "revoked");
    let first = played.asked_since.lock().unwrap()[0].clone();
    let year_ago = moment::format(NOW.minus(Duration::from_secs(366 * 86_400)));
    assert!(
        first < year_ago,
        "the first look goes back further than licences live: {first}"
    );
    drop(before);
    // The issuer cannot be reached, and still none is forgotten.
    played.down.store(true, Ordering::SeqCst);
    let after = start().await;
    assert!(after.issuers()[0].read_feed().await.is_err());
    assert_eq!(verdict(&after, &signed(&claims()), 1).await, "revoked");
    assert_eq!(
        verdict(&after, &signed(&with(&[("jti", json!("good"))])), 1).await,
        "covered",
        "the feed was read a moment ago"
    );
    played.down.store(false, Ordering::SeqCst);
    after.issuers()[0].read_feed().await.unwrap();
    assert_eq!(played.asked_since.lock().unwrap().last().unwrap(), "5");
}

#[tokio::test(start_paused = true)]
async fn a_feed_without_a_cursor_is_read_again_from_its_own_time_and_not_from_ours() {
    for (server_time, expected) in [
        (
            Some(Timestamp::from_secs(1_700_000_000)),
            "2023-11-14T22:03:20.000Z",
        ),
        (None, ""),
    ] {
        let played = Arc::new(Played {
            no_cursor: true,
            server_time,
            ..Played::default()
        });
        let books: Arc<MemoryLedger> = Arc::default();
        let issuer = aicoach()
            .feed(played.clone())
            .start(Arc::clone(&books) as _);
        let issuer = issuer.await.unwrap();
        issuer.read_feed().await.unwrap();
        let cursor = books.position("aicoach.pw").await.unwrap().unwrap().cursor;
        let first = played.asked_since.lock().unwrap()[0].clone();
        let expected = if expected.is_empty() {
            first.as_str()
        } else {
            expected
        };
        assert_eq!(cursor, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_falls_silent_closes_the_gate_after_a_while() {
    let played = Arc::new(Played::default());
    let books: Arc<MemoryLedger> = Arc::default();
    let good = signed(&claims());
    let start = |at: Timestamp, mode| {
        let issuer = aicoach()
            .feed(played.clone())
            .remote(played.clone())
            .mode(mode)
            .fail_closed_after(Duration::from_secs(3600))
            .clock(Arc::new(At(at)))
            .start(Arc::clone(&books) as _);
        async { Licences::new(vec![issuer.await.unwrap()]) }
    };
    played.down.store(true, Ordering::SeqCst);
    let never_read = start(NOW, VerifyMode::Local).await;
    assert_eq!(verdict(&never_read, &good, 1).await, "unknown");
    drop(never_read);
    played.down.store(false, Ordering::SeqCst);
    let long_ago = start(NOW.minus(Duration::from_secs(3601)), VerifyMode::Local).await;
    long_ago.issuers()[0].read_feed().await.unwrap();
    drop(long_ago);
    played.down.store(true, Ordering::SeqCst);
    let stale = start(NOW, VerifyMode::Local).await;
    assert_eq!(verdict(&stale, &good, 1).await, "unknown");
    // Whoever can ask the issuer asks, and believes it.
    let asking = start(NOW, VerifyMode::LocalThenRemote).await;
    assert_eq!(verdict(&asking, &good, 1).await, "unknown");
    played.down.store(false, Ordering::SeqCst);
    tokio::task::yield_now().await;
    let asking = Licences::new(vec![
        aicoach()
            .feed(Arc::new(Played {
                down: AtomicBool::new(true),
                ..Played::default()
            }))
            .remote(Arc::new(Played {
                yes: true,
                ..Played::default()
            }))
            .mode(VerifyMode::LocalThenRemote)
            .start(Arc::new(MemoryLedger::new()))
            .await
            .unwrap(),
    ]);
    assert_eq!(verdict(&asking, &good, 1).await, "covered");
}

#[tokio::test(start_paused = true)]
async fn the_feed_is_read_in_the_background_and_tried_again_after_failures() {
    let played = Arc::new(Played::default());
    played.down.store(true, Ordering::SeqCst);
    let licences = licences(aicoach().feed(played.clone())).await;
    let age = || licences.issuers()[0].feed_age(NOW);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(age(), None);
    played.down.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(17 * 60)).await;
    assert_eq!(age(), Some(Duration::ZERO));
    let reads = || played.asked_since.lock().unwrap().len();
    let before = reads();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(
        (9..=14).contains(&(reads() - before)),
        "every five minutes or so: {}",
        reads() - before
    );
    played.revoke("01HXKZ");
    tokio::time::sleep(Duration::from_secs(331)).await;
    assert_eq!(verdict(&licences, &signed(&claims()), 1).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn a_rotation_loses_no_buyer() {
    let played = Arc::new(Played::default());
    *played.keys.lock().unwrap() = Keyring::new().with("srv_1:1", key(FIRST));
    let issuer = Issuer::builder("aicoach.pw", "srv_1").key_source(played.clone());
    let licences = licences(issuer).await;
    let [old, new] = [("srv_1:1", FIRST), ("srv_1:2", SECOND)]
        .map(|(kid, secret)| token::sign(&claims(), kid, &key(secret)));
    assert_eq!(verdict(&licences, &old, 1).await, "covered");
    // The new key signs at once, and the issuer tells only that one.
    *played.keys.lock().unwrap() = Keyring::new().with("srv_1:2", key(SECOND));
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(verdict(&licences, &new, 1).await, "covered");
    assert_eq!(verdict(&licences, &old, 1).await, "covered");
}

#[tokio::test(start_paused = true)]
async fn without_a_secret_the_issuer_is_asked() {
    for (yes, expected) in [(true, "covered"), (false, "revoked")] {
        let played = Arc::new(Played {
            yes,
            ..Played::default()
        });
        for mode in [VerifyMode::Remote, VerifyMode::LocalThenRemote] {
            let issuer = Issuer::builder("aicoach.pw", "srv_1")
                .remote(played.clone())
                .mode(mode);
            let licences = licences(issuer).await;
            let token = token::sign(&Value::Object(Map::new()), "srv_1:9", &key(SECOND));
            assert_eq!(verdict(&licences, &token, 1).await, expected, "{mode:?}");
            if yes {
                played.down.store(true, Ordering::SeqCst);
                assert_eq!(
                    verdict(&licences, &token, 1).await,
                    "covered",
                    "for a minute"
                );
                tokio::time::advance(Duration::from_secs(60)).await;
                assert_eq!(verdict(&licences, &token, 1).await, "unknown");
                played.down.store(false, Ordering::SeqCst);
            }
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused_at_the_start() {
    let start = |issuer: IssuerBuilder| async {
        let error = issuer
            .start(Arc::new(MemoryLedger::new()))
            .await
            .unwrap_err();
        error.to_string()
    };
    let named = Issuer::builder;
    assert!(start(named("x", "a/b")).await.contains("id of a server"));
    assert!(start(named("x", "a")).await.contains("signing secret"));
    assert!(
        start(named("x", "a").mode(VerifyMode::Remote))
            .await
            .contains("address")
    );
    assert!(
        start(aicoach().most_clients(0))
            .await
            .contains("at least 1")
    );
}

/// Two processes on one ledger, or a gate and a desk in one: each hears of what was taken back, whoever reads it first.
#[tokio::test(start_paused = true)]
async fn every_reader_on_the_same_books_hears_of_a_revocation() {
    let played = Arc::new(Played::default());
    let books: Arc<MemoryLedger> = Arc::default();
    let start = || async {
        let issuer = aicoach()
            .feed(played.clone())
            .start(Arc::clone(&books) as _);
        Licences::new(vec![issuer.await.unwrap()])
    };
    let (one, other) = (start().await, start().await);
    for licences in [&one, &other] {
        licences.issuers()[0].read_feed().await.unwrap();
        assert_eq!(verdict(licences, &signed(&claims()), 1).await, "covered");
    }
    played.revoke("01HXKZ");
    for licences in [&one, &other] {
        licences.issuers()[0].read_feed().await.unwrap();
        assert_eq!(verdict(licences, &signed(&claims()), 1).await, "revoked");
    }
}

/// Says what the test wants on each page.
struct Odd<F>(F);

impl<F> std::fmt::Debug for Odd<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Odd")
    }
}

#[async_trait]
impl<F: Fn(&str) -> FeedPage + Send + Sync> RevocationFeed for Odd<F> {
    async fn page(&self, since: &str) -> Result<FeedPage> {
        Ok((self.0)(since))
    }
}

fn revoked(id: &str) -> Vec<Revocation> {
    vec![Revocation {
        id: id.to_owned(),
        expires_at: Timestamp::from_secs(4_102_444_800),
    }]
}

async fn reading<F>(page: F) -> (Licences, Result<()>)
where
    F: Fn(&str) -> FeedPage + Send + Sync + 'static,
{
    let licences = licences(aicoach().feed(Arc::new(Odd(page)))).await;
    let read = licences.issuers()[0].read_feed().await;
    (licences, read)
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_does_not_end_or_goes_in_circles_is_given_up_and_what_it_said_counts() {
    let pages = Arc::new(Mutex::new(0u64));
    let counted = Arc::clone(&pages);
    let endless = move |since: &str| {
        *counted.lock().unwrap() += 1;
        let nth: u64 = since.parse().unwrap_or(0);
        FeedPage {
            revoked: revoked(&nth.to_string()),
            next: Some((nth + 1).to_string()),
            server_time: None,
        }
    };
    let (licences, read) = reading(endless).await;
    assert!(read.is_err());
    assert!(
        *pages.lock().unwrap() <= 20_000,
        "twice: by itself, and as told"
    );
    let token = signed(&with(&[("jti", json!("77"))]));
    assert_eq!(verdict(&licences, &token, 1).await, "revoked");
    // It was never read to its end, so nobody knows what else was taken back.
    assert_eq!(verdict(&licences, &signed(&claims()), 1).await, "unknown");
    let circle = |since: &str| FeedPage {
        revoked: revoked("01HXKZ"),
        next: Some(if since == "a" { "b" } else { "a" }.to_owned()),
        server_time: None,
    };
    let (licences, read) = reading(circle).await;
    assert!(read.is_err());
    assert_eq!(verdict(&licences, &signed(&claims()), 1).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_goes_back_or_takes_back_what_it_said_opens_nothing() {
    let asked = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&asked);
    // Says it once, and then that there never was anything, from long ago on.
    let forgetful = move |_: &str| {
        let mut asked = counted.lock().unwrap();
        *asked += 1;
        FeedPage {
            revoked: if *asked == 1 {
                revoked("01HXKZ")
            } else {
                Vec::new()
            },
            next: Some("1999-01-01T00:00:00Z".to_owned()),
            server_time: Some(Timestamp::from_secs(1)),
        }
    };
    let (licences, read) = reading(forgetful).await;
    read.unwrap();
    for _ in 0..3 {
        licences.issuers()[0].read_feed().await.unwrap();
        assert_eq!(verdict(&licences, &signed(&claims()), 1).await, "revoked");
    }
    // A name that no licence can have is not kept.
    let long = |_: &str| FeedPage {
        revoked: revoked(&"x".repeat(1 << 20)),
        next: None,
        server_time: None,
    };
    let (licences, read) = reading(long).await;
    read.unwrap();
    assert_eq!(verdict(&licences, &signed(&claims()), 1).await, "covered");
}

/// Traffic under both keys while the issuer rotates again and again: nobody who holds a licence is turned away.
#[tokio::test(start_paused = true)]
async fn rotations_under_traffic_lose_no_buyer() {
    let secret = |n: usize| format!("{n:032}");
    let ring = |n: usize| Keyring::new().with(format!("srv_1:{n}"), key(&secret(n)));
    let played = Arc::new(Played::default());
    *played.keys.lock().unwrap() = ring(1);
    let issuer = Issuer::builder("aicoach.pw", "srv_1").key_source(played.clone());
    let licences = Arc::new(licences(issuer).await);
    let mut sold: Vec<String> = Vec::new();
    for n in 1..=5 {
        // The new key signs at once, and the issuer tells only that one.
        *played.keys.lock().unwrap() = ring(n);
        sold.push(token::sign(
            &claims(),
            &format!("srv_1:{n}"),
            &key(&secret(n)),
        ));
        let calls: Vec<_> = (0..200)
            .map(|m| {
                let (licences, token) = (Arc::clone(&licences), sold[m % sold.len()].clone());
                tokio::spawn(async move { verdict(&licences, &token, 1).await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), "covered", "rotation {n}");
        }
        tokio::time::sleep(Duration::from_secs(31)).await;
    }
}

#[cfg(feature = "nostr")]
#[tokio::test]
async fn a_public_licence_counts_for_its_holder_until_it_is_taken_back() {
    let signer = PublicSigner::new(&"01".repeat(32)).unwrap();
    let terms = LicenceTerms::new("np_1", "p", NOW).held_by(client(1));
    let token = signer.sign(&terms).unwrap();
    let server = read_public(&token).unwrap().server.to_string();
    let played = Arc::new(Played::default());
    let start = |server: String, public: bool| {
        let played = played.clone();
        async move {
            let keys = Keyring::new().with(format!("{server}:1"), key(FIRST));
            let issuer = Issuer::builder("shop", &server)
                .keys(keys)
                .feed(played)
                .clock(Arc::new(At(NOW)));
            let issuer = match public {
                true => issuer.public_licences(),
                false => issuer,
            };
            let licences = licences(issuer).await;
            licences.issuers()[0].read_feed().await.unwrap();
            licences
        }
    };
    let shop = start(server.clone(), true).await;
    let token = token.reveal();
    assert_eq!(verdict(&shop, token, 1).await, "covered");
    assert_eq!(
        verdict(&shop, token, 2).await,
        "invalid_token: not the holder of this licence"
    );
    let expired = signer.sign(&terms.clone().living(Duration::ZERO)).unwrap();
    assert_eq!(
        verdict(&shop, expired.reveal(), 1).await,
        "covered",
        "within the leeway"
    );
    let early = LicenceTerms::new("np_2", "p", NOW.plus(Duration::from_secs(61)));
    let early = signer.sign(&early.held_by(client(1))).unwrap();
    assert_eq!(
        verdict(&shop, early.reveal(), 1).await,
        "invalid_token: jwt not active"
    );
    let other = terms.clone().good_for(vec!["tool:other".parse().unwrap()]);
    let other = signer.sign(&other).unwrap();
    assert_eq!(
        verdict(&shop, other.reveal(), 1).await,
        "invalid_token: not for this capability"
    );
    // Of another server, and where they do not count.
    assert_eq!(
        verdict(&start("ab".repeat(32), true).await, token, 1).await,
        "server_mismatch"
    );
    assert_eq!(
        verdict(&start(server, false).await, token, 1).await,
        "invalid_token: jwt malformed"
    );
    played.revoke("np_1");
    shop.issuers()[0].read_feed().await.unwrap();
    assert_eq!(verdict(&shop, token, 1).await, "revoked");
}
