//! Webhooks: who has signed this, and what does it point at? Nothing in it is believed beyond that.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::error::{Error, Result};
use crate::payment::Timestamp;

/// How old a signature may be, or how far ahead of our clock.
const TOLERANCE: Duration = Duration::from_secs(300);
/// How many signatures of one header are looked at.
const MOST_SIGNATURES: usize = 16;
/// The longest name of an object or an event.
const LONGEST_NAME: usize = 255;

/// The secrets that webhooks may be signed with: several, while one is replaced by the next. Never printed.
#[derive(Clone)]
pub struct WebhookSecrets(Vec<String>);

impl WebhookSecrets {
    /// Reads secrets (`whsec_…`), with commas or spaces between them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that does not repeat them.
    pub fn parse(text: &str) -> Result<Self> {
        let secrets: Vec<String> = text
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|secret| !secret.is_empty())
            .map(str::to_owned)
            .collect();
        let good = |secret: &String| {
            secret.len() >= 16 && secret.len() <= 255 && secret.starts_with("whsec_")
        };
        if secrets.is_empty() || !secrets.iter().all(good) {
            return Err(Error::config(
                "must be the signing secret of a webhook endpoint of Stripe (whsec_…), or several with commas between them",
            ));
        }
        Ok(Self(secrets))
    }

    /// Whether one of the secrets has signed `body`, by its `Stripe-Signature` header, not longer ago than the tolerance.
    ///
    /// # Errors
    ///
    /// Why not, in words that hold nothing of what was sent.
    pub fn verify(
        &self,
        header: Option<&str>,
        body: &[u8],
        now: Timestamp,
    ) -> std::result::Result<(), &'static str> {
        let header = header.ok_or("there is no signature")?;
        let mut at = None;
        let mut signatures = Vec::new();
        for part in header.split(',') {
            match part.trim().split_once('=') {
                Some(("t", secs)) if at.is_none() => at = Some(secs),
                // Signatures of other schemes (v0 is for tests) count for nothing.
                Some(("v1", hex)) if signatures.len() < MOST_SIGNATURES => {
                    signatures.extend(unhex(hex));
                }
                _ => {}
            }
        }
        let at = at.ok_or("the signature says no time")?;
        let signed_at = at
            .parse::<u64>()
            .map_err(|_| "the signature says no time")
            .map(Timestamp::from_secs)?;
        let mut right = false;
        for secret in &self.0 {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
                .map_err(|_| "the secret cannot be used")?;
            mac.update(at.as_bytes());
            mac.update(b".");
            mac.update(body);
            for signature in &signatures {
                // Compares in a time that does not tell how much was right.
                right |= mac.clone().verify_slice(signature).is_ok();
            }
        }
        if !right {
            return Err("no signature is right");
        }
        if now.since(signed_at).max(signed_at.since(now)) > TOLERANCE {
            return Err("the signature is too old");
        }
        Ok(())
    }
}

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookSecrets({}, hidden)", self.0.len())
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum About {
    /// A page of Checkout, by its id.
    Session(String),
    /// A subscription, by its id.
    Subscription(String),
    /// A payment, by the id of its PaymentIntent.
    Payment(String),
}

/// An event that concerns us.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebhookEvent {
    /// Its id: the same id again is the same event.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// Whether it is about money.
    pub live: bool,
    /// What to look at.
    pub about: About,
}

impl WebhookEvent {
    /// Reads an event; `None` if it is about nothing that concerns us.
    ///
    /// # Errors
    ///
    /// Why it is no event.
    pub fn parse(body: &[u8]) -> std::result::Result<Option<Self>, &'static str> {
        let event: Value = serde_json::from_slice(body).map_err(|_| "it is no JSON")?;
        let text = |value: &Value| value.as_str().and_then(name);
        let id = text(&event["id"]).ok_or("it has no id")?;
        let kind = text(&event["type"]).ok_or("it has no type")?;
        let live = event["livemode"].as_bool().unwrap_or(false);
        let object = &event["data"]["object"];
        let about = match kind.as_str() {
            kind if kind.starts_with("checkout.session.") => {
                text(&object["id"]).map(About::Session)
            }
            kind if kind.starts_with("customer.subscription.") => {
                text(&object["id"]).map(About::Subscription)
            }
            kind if kind.starts_with("invoice.") => {
                let details = &object["parent"]["subscription_details"]["subscription"];
                let named = text(details).or_else(|| text(&object["subscription"]));
                named.map(About::Subscription)
            }
            kind if kind.starts_with("charge.") || kind.starts_with("refund.") => {
                text(&object["payment_intent"]).map(About::Payment)
            }
            _ => None,
        };
        Ok(about.map(|about| Self {
            id,
            kind,
            live,
            about,
        }))
    }
}

impl About {
    /// In one word, for the books.
    #[must_use]
    pub fn to_word(&self) -> String {
        match self {
            Self::Session(id) => format!("session:{id}"),
            Self::Subscription(id) => format!("subscription:{id}"),
            Self::Payment(id) => format!("payment:{id}"),
        }
    }

    /// From that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let (what, id) = word.split_once(':')?;
        let id = name(id)?;
        match what {
            "session" => Some(Self::Session(id)),
            "subscription" => Some(Self::Subscription(id)),
            "payment" => Some(Self::Payment(id)),
            _ => None,
        }
    }
}

/// A name as Stripe gives them: it goes into addresses and into the books.
fn name(text: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let plain = !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(legal);
    (plain && text != "." && text != "..").then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by the official library, stripe-node 23.1.0 (`generateTestHeaderString`).
    const SECRET: &str = "whsec_test_secret";
    const BODY: &str = r#"{"id":"evt_1","object":"event","type":"checkout.session.completed","data":{"object":{"id":"cs_test_1","object":"checkout.session","payment_status":"paid"}}}"#;
    const SIGNATURE: &str = "c4c1c70dfe0b7cd1aca80f935c72016fc6b39f8dd1b83113fa2113d7a90ee34a";
    const AT: u64 = 1_700_000_000;

    fn verify(secrets: &str, header: Option<&str>, body: &str, now: u64) -> bool {
        let secrets = WebhookSecrets::parse(secrets).unwrap();
        let now = Timestamp::from_secs(now);
        secrets.verify(header, body.as_bytes(), now).is_ok()
    }

    #[test]
    fn a_signature_of_the_official_library_counts_for_five_minutes() {
        let header = format!("t={AT},v1={SIGNATURE}");
        for (now, counts) in [
            (AT, true),
            (AT + 300, true),
            (AT - 300, true),
            (AT + 301, false),
            (AT - 301, false),
        ] {
            assert_eq!(verify(SECRET, Some(&header), BODY, now), counts, "{now}");
        }
    }

    #[test]
    fn whatever_is_tampered_with_is_refused() {
        let header = format!("t={AT},v1={SIGNATURE}");
        let tampered = BODY.replace("cs_test_1", "cs_test_2");
        let spaced = BODY.replace(':', ": ");
        for body in [tampered.as_str(), &spaced, "", &BODY[1..]] {
            assert!(!verify(SECRET, Some(&header), body, AT), "{body}");
        }
        let other = SIGNATURE.replace('c', "d");
        for header in [
            None,
            Some(String::new()),
            Some(format!("t={AT}")),
            Some(format!("v1={SIGNATURE}")),
            Some(format!("t={},v1={SIGNATURE}", AT + 1)),
            Some(format!("t={AT},v1={other}")),
            Some(format!("t={AT},v0={SIGNATURE}")),
            Some(format!("t={AT},v1={}", &SIGNATURE[..62])),
            Some(format!("t={AT},v1=é{SIGNATURE}")),
            Some(format!("t=,v1={SIGNATURE}")),
            Some(format!("t=-1,v1={SIGNATURE}")),
        ] {
            assert!(!verify(SECRET, header.as_deref(), BODY, AT), "{header:?}");
        }
        assert!(!verify("whsec_another_secret", Some(&header), BODY, AT));
    }

    #[test]
    fn while_a_secret_is_replaced_both_count() {
        let header = format!("t={AT},v1={},v1={SIGNATURE}", "0".repeat(64));
        let both = format!("whsec_the_next_one,{SECRET}");
        assert!(verify(&both, Some(&header), BODY, AT));
        for bad in ["", "secret", "whsec_", "whsec_test_secret,x"] {
            assert!(WebhookSecrets::parse(bad).is_err(), "{bad}");
        }
        let printed = format!("{:?}", WebhookSecrets::parse(SECRET).unwrap());
        assert!(!printed.contains("test_secret"), "{printed}");
    }

    #[test]
    fn an_event_is_read_for_what_it_points_at() {
        let parse = |kind: &str, object: Value| {
            let event = serde_json::json!({ "id": "evt_1", "type": kind, "livemode": false, "data": { "object": object } });
            WebhookEvent::parse(event.to_string().as_bytes())
        };
        let about = |kind: &str, object: Value| parse(kind, object).unwrap().map(|e| e.about);
        let id = |id: &str| serde_json::json!({ "id": id });
        assert_eq!(
            about("checkout.session.completed", id("cs_1")),
            Some(About::Session("cs_1".to_owned()))
        );
        assert_eq!(
            about("customer.subscription.deleted", id("sub_1")),
            Some(About::Subscription("sub_1".to_owned()))
        );
        let invoice = serde_json::json!({ "id": "in_1", "parent": { "subscription_details": { "subscription": "sub_1" } } });
        assert_eq!(
            about("invoice.paid", invoice),
            Some(About::Subscription("sub_1".to_owned()))
        );
        let charge = serde_json::json!({ "id": "ch_1", "payment_intent": "pi_1" });
        assert_eq!(
            about("charge.refunded", charge),
            Some(About::Payment("pi_1".to_owned()))
        );
        assert_eq!(about("invoice.paid", id("in_1")), None);
        assert_eq!(about("customer.created", id("cus_1")), None);
        assert_eq!(about("checkout.session.completed", id("../../etc")), None);
        for body in [
            "",
            "[]",
            "null",
            "{}",
            r#"{"id":"evt_1"}"#,
            r#"{"id":5,"type":"x"}"#,
        ] {
            assert!(WebhookEvent::parse(body.as_bytes()).is_err(), "{body}");
        }
        for about in [
            About::Session("cs_1".to_owned()),
            About::Subscription("s".to_owned()),
            About::Payment("p".to_owned()),
        ] {
            assert_eq!(About::from_word(&about.to_word()), Some(about));
        }
    }
}
