//! Public licences: a Nostr event that the server signs, and anybody can verify without a secret and without asking. What is
//! taken back is a Nostr event, too.
//!
//! | kind | what it is | tags |
//! |---|---|---|
//! | [`LICENCE_KIND`] | a licence; handed to its holder, not published | `d` (its name), `p` (its holder), `expiration`, `capability` (any number; everything without one), `purchase`, `alt` |
//! | [`REVOCATION_KIND`] | that it was taken back; addressable, published on the server's relays | `d` (its name), `expiration` (that of the licence), `alt` |
//!
//! As a token, to be shown like the others, it is `nostr.` and the base64url of the event's JSON. It always names its holder: it
//! may be read by others, so it must be worth nothing to them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nostr::{Event, EventBuilder, JsonUtil, Keys, Kind, Tag};
use serde_json::{Map, Value, json};

use super::claims::Claims;
use super::{LicenceError, LicenceTerms};
use crate::error::{Error, Result};
use crate::payment::{BearerToken, ClientPubkey, ServerPubkey, Timestamp};

/// The kind of a licence: an ordinary event.
pub const LICENCE_KIND: u16 = 8403;

/// The kind of a revocation: addressable, so that relays keep one for each licence, and can be asked for it by name.
pub const REVOCATION_KIND: u16 = 38403;

/// What a token begins with that is an event, and no JWT.
const PREFIX: &str = "nostr.";

/// Signs public licences with the key of the server that they are for.
#[derive(Clone)]
pub struct PublicSigner(Keys);

/// A licence that its server has signed. Not looked at yet: whether it has run out, and whether it was taken back.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PublicLicence {
    /// The server that signed it, and that it is for.
    pub server: ServerPubkey,
    /// Who alone can use it.
    pub holder: ClientPubkey,
    /// What it says, in the words of the other licences.
    pub claims: Claims,
}

impl PublicLicence {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        self.claims.id().unwrap_or_default()
    }

    /// Whether it counts at `at`, as far as its own dates say.
    ///
    /// # Errors
    ///
    /// [`LicenceError`]: it has run out, or does not begin before long.
    pub fn check(&self, at: Timestamp) -> Result<(), LicenceError> {
        let leeway = std::time::Duration::from_secs(60);
        let expected = super::claims::Expected {
            issuer: self.server.to_string(),
            server_id: self.server.to_string(),
            leeway,
        };
        self.claims.check(&expected, at)
    }

    /// Its claims, as those of an issuer that calls itself `issuer`.
    pub(super) fn claims_of(self, issuer: &str) -> Claims {
        let mut claims = self.claims;
        claims.0.insert("iss".to_owned(), issuer.into());
        claims
    }
}

/// That a public licence was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublicRevocation {
    /// The server that took it back.
    pub server: ServerPubkey,
    /// The name of the licence.
    pub id: String,
    /// When.
    pub at: Timestamp,
}

impl PublicSigner {
    /// Signs with this secret key, in hex.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for any other text, which is not repeated.
    pub fn new(secret: &str) -> Result<Self> {
        Keys::parse(secret)
            .map(Self)
            .map_err(|_| Error::config("a secret key must be nsec1… or 64 hex digits"))
    }

    /// The licence with these terms. `None` if they name no holder, or make it longer than a token may be.
    #[must_use]
    pub fn sign(&self, terms: &LicenceTerms) -> Option<BearerToken> {
        let holder = terms.holder?.to_string();
        let expires_at = terms.expires_at().as_secs().to_string();
        let mut tags = vec![
            vec!["d".to_owned(), terms.id.clone()],
            vec!["p".to_owned(), holder],
            vec!["expiration".to_owned(), expires_at],
            vec!["purchase".to_owned(), terms.purchase.clone()],
            vec!["alt".to_owned(), "a licence for an MCP server".to_owned()],
        ];
        let capabilities = terms.capabilities.iter();
        tags.extend(capabilities.map(|c| vec!["capability".to_owned(), c.to_string()]));
        let event = self.event(LICENCE_KIND, tags, terms.issued_at).ok()?;
        let mut token = PREFIX.to_owned();
        URL_SAFE_NO_PAD.encode_string(event.as_json(), &mut token);
        BearerToken::new(&token)
    }

    /// The event, as JSON, that says that the licence `id` was taken back `at`, for as long as it would have lived.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Wire`](crate::ErrorKind::Wire) if it cannot be signed.
    pub fn revoke(&self, id: &str, expires_at: Timestamp, at: Timestamp) -> Result<String> {
        let tags = vec![
            vec!["d".to_owned(), id.to_owned()],
            vec!["expiration".to_owned(), expires_at.as_secs().to_string()],
            vec![
                "alt".to_owned(),
                "a licence for an MCP server was taken back".to_owned(),
            ],
        ];
        Ok(self.event(REVOCATION_KIND, tags, at)?.as_json())
    }

    fn event(&self, kind: u16, tags: Vec<Vec<String>>, at: Timestamp) -> Result<Event> {
        let failed = |_| Error::wire("a licence cannot be signed");
        let tags: Result<Vec<Tag>, _> = tags.into_iter().map(Tag::parse).collect();
        EventBuilder::new(Kind::from(kind), "")
            .tags(tags.map_err(|_| Error::wire("a licence cannot be written"))?)
            .custom_created_at(nostr::Timestamp::from_secs(at.as_secs()))
            .sign_with_keys(&self.0)
            .map_err(failed)
    }
}

impl std::fmt::Debug for PublicSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PublicSigner")
    }
}

/// Whether `token` is a public licence, genuine or not.
#[must_use]
pub fn is_public(token: &BearerToken) -> bool {
    token.reveal().starts_with(PREFIX)
}

/// Reads a public licence and verifies its id and its signature. Nobody is asked.
///
/// # Errors
///
/// [`LicenceError::InvalidToken`] with what is wrong.
pub fn read_public(token: &BearerToken) -> Result<PublicLicence, LicenceError> {
    let malformed = || LicenceError::invalid("licence malformed");
    let text = token.reveal().strip_prefix(PREFIX).ok_or_else(malformed)?;
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed())?;
    let event = Event::from_json(json).map_err(|_| malformed())?;
    if event.kind.as_u16() != LICENCE_KIND {
        return Err(LicenceError::invalid("not a licence"));
    }
    if event.verify().is_err() {
        return Err(LicenceError::invalid("invalid signature"));
    }
    let holder: ClientPubkey = only(&event, "p")?
        .and_then(|holder| holder.parse().ok())
        .ok_or_else(|| LicenceError::invalid("p is missing"))?;
    let expires_at: u64 = only(&event, "expiration")?
        .and_then(|at| at.parse().ok())
        .ok_or_else(|| LicenceError::invalid("expiration is missing"))?;
    let id = only(&event, "d")?.filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| LicenceError::invalid("d is missing"))?;
    let server = event.pubkey.to_hex();
    let mut claims = Map::new();
    let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    claim("iss", server.as_str().into());
    claim("sub", format!("nostr:{holder}").into());
    claim("aud", format!("mcp_server:{server}").into());
    claim("jti", id.into());
    claim("serverId", server.as_str().into());
    claim("iat", event.created_at.as_secs().into());
    claim("exp", expires_at.into());
    claim("cnf", json!({ "nostr": holder }));
    if let Some(purchase) = only(&event, "purchase")? {
        claim("purchaseId", purchase.into());
    }
    let capabilities: Vec<Value> = values(&event, "capability").map(Value::from).collect();
    if !capabilities.is_empty() {
        claim("capabilities", capabilities.into());
    }
    Ok(PublicLicence {
        server: ServerPubkey::from_bytes(event.pubkey.to_bytes()),
        holder,
        claims: Claims(claims),
    })
}

/// Reads the event that says that a public licence was taken back, and verifies its id and its signature.
///
/// # Errors
///
/// [`ErrorKind::Wire`](crate::ErrorKind::Wire) for everything else.
pub fn read_revocation(json: &str) -> Result<PublicRevocation> {
    let event = Event::from_json(json).map_err(|_| Error::wire("a revocation cannot be read"))?;
    if event.kind.as_u16() != REVOCATION_KIND {
        return Err(Error::wire("this is no revocation"));
    }
    if event.verify().is_err() {
        return Err(Error::wire("a revocation has a wrong signature"));
    }
    let id = only(&event, "d").ok().flatten();
    let id = id.ok_or_else(|| Error::wire("a revocation names no licence"))?;
    Ok(PublicRevocation {
        server: ServerPubkey::from_bytes(event.pubkey.to_bytes()),
        id: id.to_owned(),
        at: Timestamp::from_secs(event.created_at.as_secs()),
    })
}

/// The value of the tag `name`, of which there may be one: of two, nobody knows which was meant.
fn only<'e>(event: &'e Event, name: &'static str) -> Result<Option<&'e str>, LicenceError> {
    let mut found = values(event, name);
    let first = found.next();
    match found.next() {
        None => Ok(first),
        Some(_) => Err(LicenceError::invalid(format!("{name} is there twice"))),
    }
}

fn values<'e>(event: &'e Event, name: &'static str) -> impl Iterator<Item = &'e str> {
    event
        .tags
        .iter()
        .filter_map(move |tag| match tag.as_slice() {
            [own, value, ..] if own == name => Some(value.as_str()),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const SECRET: &str = "0000000000000000000000000000000000000000000000000000000000000003";

    fn signer() -> PublicSigner {
        PublicSigner::new(SECRET).unwrap()
    }

    fn terms() -> LicenceTerms {
        LicenceTerms::new("np_1", "p", NOW)
            .held_by(ClientPubkey::from_bytes([1; 32]))
            .good_for(vec!["tool:add".parse().unwrap()])
            .living(Duration::from_secs(100))
    }

    fn event_of(token: &BearerToken) -> Value {
        let text = token.reveal().strip_prefix(PREFIX).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    }

    fn token_of(event: &Value) -> BearerToken {
        let text = URL_SAFE_NO_PAD.encode(event.to_string());
        BearerToken::new(&format!("{PREFIX}{text}")).unwrap()
    }

    fn signed(kind: u16, tags: &[&[&str]]) -> BearerToken {
        let tags = tags
            .iter()
            .map(|tag| tag.iter().map(ToString::to_string).collect());
        let event = signer().event(kind, tags.collect(), NOW).unwrap();
        token_of(&serde_json::from_str(&event.as_json()).unwrap())
    }

    #[test]
    fn what_was_signed_is_read_back_by_anybody() {
        let token = signer().sign(&terms()).unwrap();
        assert!(is_public(&token));
        let read = read_public(&token).unwrap();
        let server = Keys::parse(SECRET).unwrap().public_key().to_hex();
        assert_eq!((read.server.to_string(), read.id()), (server, "np_1"));
        assert_eq!(read.holder, ClientPubkey::from_bytes([1; 32]));
        assert_eq!(read.claims.as_map()["capabilities"], json!(["tool:add"]));
        assert_eq!(read.check(NOW), Ok(()));
        let late = NOW.plus(Duration::from_secs(161));
        assert_eq!(read.check(late), Err(LicenceError::invalid("jwt expired")));
        // The same terms again: the same licence.
        let again = signer().sign(&terms()).unwrap();
        assert_eq!(event_of(&again)["id"], event_of(&token)["id"]);
        let event = event_of(&token);
        assert_eq!(
            (&event["kind"], &event["content"]),
            (&json!(8403), &json!(""))
        );
        assert!(!format!("{:?}", signer()).contains("0003"));
    }

    #[test]
    fn whatever_is_changed_or_made_up_is_refused() {
        let good = event_of(&signer().sign(&terms()).unwrap());
        let changed = |field: &str, value: Value| {
            let mut event = good.clone();
            event[field] = value;
            token_of(&event)
        };
        let p = "01".repeat(32);
        let me = ["p", p.as_str()];
        let (d, exp) = (["d", "x"], ["expiration", "4102444800"]);
        let token = |text: &str| BearerToken::new(text).unwrap();
        for (token, reason) in [
            (changed("pubkey", p.clone().into()), "invalid signature"),
            (changed("created_at", 1.into()), "invalid signature"),
            (changed("tags", json!([["d", "x"]])), "invalid signature"),
            (changed("content", "x".into()), "invalid signature"),
            (changed("sig", "00".repeat(64).into()), "invalid signature"),
            (changed("id", "00".repeat(32).into()), "invalid signature"),
            (changed("kind", 8404.into()), "not a licence"),
            (changed("kind", json!("8403")), "licence malformed"),
            (token("nostr."), "licence malformed"),
            (token("nostr.e30"), "licence malformed"),
            (token("nostr.=="), "licence malformed"),
            (signed(1, &[&me, &d, &exp]), "not a licence"),
            (signed(38403, &[&me, &d, &exp]), "not a licence"),
            (signed(8403, &[&d, &exp]), "p is missing"),
            (signed(8403, &[&["p", "x"], &d, &exp]), "p is missing"),
            (signed(8403, &[&me, &me, &d, &exp]), "p is there twice"),
            (signed(8403, &[&me, &exp]), "d is missing"),
            (signed(8403, &[&me, &["d", ""], &exp]), "d is missing"),
            (signed(8403, &[&me, &d]), "expiration is missing"),
            (
                signed(8403, &[&me, &d, &["expiration", "never"]]),
                "expiration is missing",
            ),
            (
                signed(8403, &[&me, &d, &exp, &["expiration", "1"]]),
                "expiration is there twice",
            ),
        ] {
            let error = read_public(&token).unwrap_err();
            assert_eq!(error, LicenceError::invalid(reason), "{}", token.reveal());
        }
        assert!(read_public(&signed(8403, &[&me, &d, &exp])).is_ok());
    }

    #[test]
    fn a_licence_for_nobody_or_of_great_length_is_not_made() {
        let mut nobodys = terms();
        nobodys.holder = None;
        assert!(signer().sign(&nobodys).is_none());
        let tools = (0..500).map(|n| format!("tool:number-{n}").parse().unwrap());
        assert!(signer().sign(&terms().good_for(tools.collect())).is_none());
    }

    #[test]
    fn a_revocation_is_believed_if_it_was_signed() {
        let json = signer().revoke("np_1", NOW, NOW).unwrap();
        let read = read_revocation(&json).unwrap();
        assert_eq!((read.id.as_str(), read.at), ("np_1", NOW));
        assert!(read_revocation(&json.replace("np_1", "np_2")).is_err());
        let licence = event_of(&signer().sign(&terms()).unwrap());
        assert!(read_revocation(&licence.to_string()).is_err());
        assert!(read_revocation("{").is_err());
    }
}
