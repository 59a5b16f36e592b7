//! Our client of Stripe against a Stripe that others wrote, localstripe from PyPI: so that our fake is not the only one that it
//! understands. What localstripe knows of what we ask for: customers, subscriptions, PaymentIntents, charges and their refunds,
//! and webhooks with signatures. Checkout, prices, meters, shared payment tokens, disputes, searches and idempotency keys it does
//! not know; there the official library holds our fake against its idea of Stripe (`tests/real_stripe.rs`).
//!
//! `tests/real/setup-localstripe` installs it, once. Where that cannot be done this is skipped and says so, but not in CI.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
#![allow(dead_code, reason = "of what the tests share, this one needs a part")]

#[path = "support/binary.rs"]
mod binary;
#[path = "support/counterparts.rs"]
mod counterparts;
#[path = "support/http_service.rs"]
mod http_service;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tollkeeper::payment::{Clock, PaymentOrder, SystemClock};
use tollkeeper::rails::stripe::{
    About, GrantedToken, StripeClient, StripeConfig, StripeKey, TokenCharge, TokenCharger,
    WebhookEvent, WebhookSecrets,
};

use binary::Running;
use http_service::{HttpService, Reply};

const SETUP: &str = "tests/real/setup-localstripe";
/// Any key that looks like one is known.
const KEY: &str = "sk_test_localstripe";
const WEBHOOK_SECRET: &str = "whsec_0123456789abcdef";
const ORDER: &str = "tollkeeper-order-1";

/// A running one, with nothing in it.
struct LocalStripe {
    _running: Running,
    address: String,
}

impl LocalStripe {
    /// `None`, said aloud, where it cannot be installed.
    async fn start() -> Option<Self> {
        let installed = spawn_blocking(|| {
            static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
            let installed = INSTALLED.get_or_init(|| {
                counterparts::set_up(SETUP)?;
                let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
                let services = std::env::var_os("TOLLKEEPER_SERVICES")
                    .map_or_else(|| checkout.join(".services"), PathBuf::from);
                Ok(services.join("localstripe/python/bin/python"))
            });
            match installed {
                Ok(python) => Some(python),
                Err(reason) => counterparts::skipped(SETUP, reason),
            }
        });
        let python = installed.await.unwrap()?;
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/real/localstripe/serve.py"
        );
        let mut command = Command::new(python);
        command.arg(script);
        spawn_blocking(move || {
            let running = Running::start(command);
            let ready = running.next().expect("localstripe must become ready");
            let url = ready["url"].as_str().unwrap();
            Some(Self {
                address: url.strip_prefix("http://").unwrap().to_owned(),
                _running: running,
            })
        })
        .await
        .unwrap()
    }

    fn client(&self, key: &str) -> StripeClient {
        let config = StripeConfig::new(StripeKey::parse(key).unwrap(), false)
            .unwrap()
            .base_url(&format!("http://{}", self.address))
            .unwrap()
            .timeouts(Duration::from_secs(2), Duration::from_secs(10));
        StripeClient::new(&config).unwrap()
    }

    fn charger(&self) -> TokenCharger {
        TokenCharger::new(self.client(KEY))
    }

    /// Asks as its other users do, not through our client. Returns what it says, which must be a success.
    async fn ask(&self, method: &str, path: &str, form: &str) -> Value {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {KEY}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            form.len()
        );
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 "), "{path} {form}: {text}");
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_default()
    }

    /// The id of what is made.
    async fn make(&self, path: &str, form: &str) -> String {
        let made = self.ask("POST", path, form).await;
        made["id"].as_str().unwrap().to_owned()
    }

    /// A PaymentIntent of 50 cents for our order, with these parameters more.
    async fn intent(&self, more: &str) -> String {
        let form = format!("amount=50&currency=usd&metadata[tollkeeper_order]={ORDER}{more}");
        self.make("/v1/payment_intents", &form).await
    }

    /// A customer with this way of paying, which goes along with a PaymentIntent.
    async fn payer(&self, method: &str) -> String {
        let method = self.make("/v1/payment_methods", method).await;
        format!("&payment_method={method}")
    }

    async fn subscribe(&self, purchase: &str) -> (String, Value) {
        let plan = "id=monthly&product[name]=Search&amount=500&currency=usd&interval=month";
        self.make("/v1/plans", plan).await;
        let customer = self
            .make("/v1/customers", "payment_method=pm_card_visa")
            .await;
        let method = self
            .make("/v1/payment_methods", &card("4242424242424242"))
            .await;
        let attach = format!("/v1/payment_methods/{method}/attach");
        self.ask("POST", &attach, &format!("customer={customer}"))
            .await;
        let default = format!("invoice_settings[default_payment_method]={method}");
        self.ask("POST", &format!("/v1/customers/{customer}"), &default)
            .await;
        let form = format!(
            "customer={customer}&items[0][plan]=monthly&metadata[tollkeeper_purchase]={purchase}"
        );
        let made = self.ask("POST", "/v1/subscriptions", &form).await;
        (made["id"].as_str().unwrap().to_owned(), made)
    }
}

fn card(number: &str) -> String {
    format!("type=card&card[number]={number}&card[exp_month]=12&card[exp_year]=2040&card[cvc]=123")
}

fn order() -> PaymentOrder {
    let amount = "50 usd-cents".parse().unwrap();
    PaymentOrder::new(
        ORDER.to_owned(),
        amount,
        "a call".to_owned(),
        Duration::from_secs(60),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn localstripe_makes_the_customer_that_we_ask_for() {
    let Some(stripe) = LocalStripe::start().await else {
        return;
    };
    let client = "ab".repeat(32);
    let id = stripe.client(KEY).make_customer(&client).await.unwrap();
    let made = stripe.ask("GET", &format!("/v1/customers/{id}"), "").await;
    assert_eq!(made["id"], id.as_str());
    assert_eq!(made["metadata"]["nostr_pubkey"], client.as_str());
    assert_eq!(made["metadata"]["tollkeeper_client"], client.as_str());
    // "No such object" is an answer, and an address that it does not know is none: nothing is concluded from it.
    let unknown = stripe.client(KEY).subscription("sub_unknown").await;
    assert!(unknown.unwrap_err().is_not_found());
    let unheard = stripe.client(KEY).price("price_unknown").await;
    assert!(!unheard.unwrap_err().is_not_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_of_localstripe_is_read_with_its_purchase_and_its_invoice() {
    let Some(stripe) = LocalStripe::start().await else {
        return;
    };
    let (id, made) = stripe.subscribe("purchase-1").await;
    assert_eq!(made["status"], "active");
    let (purchase, invoice) = stripe.client(KEY).subscription(&id).await.unwrap();
    assert_eq!(purchase.as_deref(), Some("purchase-1"));
    assert!(invoice.is_some());
    assert_eq!(invoice.as_deref(), made["latest_invoice"].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_localstripe_gave_back_is_taken_back_and_a_part_of_it_is_not() {
    let Some(stripe) = LocalStripe::start().await else {
        return;
    };
    let client = stripe.client(KEY);
    let payer = stripe.payer(&card("4242424242424242")).await;
    let paid = stripe.intent(&format!("{payer}&confirm=true")).await;
    assert_eq!(client.payment(&paid).await.unwrap().taken_back, None);
    for (part, word) in [("&amount=20", None), ("&amount=30", Some("refunded"))] {
        let refund = format!("payment_intent={paid}{part}");
        stripe.make("/v1/refunds", &refund).await;
        assert_eq!(
            client.payment(&paid).await.unwrap().taken_back,
            word,
            "{part}"
        );
    }
    // Nothing was taken, so nothing was taken back.
    let open = stripe.intent("").await;
    assert_eq!(client.payment(&open).await.unwrap().taken_back, None);
    let unknown = client.payment("pi_unknown").await;
    assert!(unknown.unwrap_err().is_not_found());
}

/// Every state that localstripe gives a PaymentIntent. It never says how much of it has arrived, as Stripe always does: what it
/// calls succeeded is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_charge_counts_by_the_state_that_localstripe_gives_it() {
    let Some(stripe) = LocalStripe::start().await else {
        return;
    };
    let visa = stripe.payer(&card("4242424242424242")).await;
    let asks = stripe.payer(&card("4000002760003184")).await;
    let bank = stripe
        .payer("type=sepa_debit&sepa_debit[iban]=DE62370400440532013001")
        .await;
    let canceled = stripe.intent(&visa).await;
    let cancel = format!("/v1/payment_intents/{canceled}/cancel");
    stripe.ask("POST", &cancel, "").await;
    let charger = stripe.charger();
    let look = async |id: &str| charger.look_up_charge(&order(), id).await;

    let nothing = stripe.intent("").await;
    let failed = look(&nothing).await;
    assert!(
        matches!(&failed, TokenCharge::Failed { payment_intent: Some(id), code }
            if *id == nothing && code == "requires_payment_method"),
        "{failed:?}"
    );
    let failed = look(&canceled).await;
    assert!(
        matches!(&failed, TokenCharge::Failed { code, .. } if code == "canceled"),
        "{failed:?}"
    );
    for waits in [
        stripe.intent(&visa).await,
        stripe.intent(&format!("{asks}&confirm=true")).await,
    ] {
        let waiting = look(&waits).await;
        assert!(
            matches!(&waiting, TokenCharge::RequiresAction { payment_intent } if *payment_intent == waits),
            "{waiting:?}"
        );
    }
    let paid = stripe.intent(&format!("{visa}&confirm=true")).await;
    let unbelieved = look(&paid).await;
    assert!(
        matches!(unbelieved, TokenCharge::Unknown(_)),
        "{unbelieved:?}"
    );
    // Its bank takes half a second to say no.
    let slow = stripe.intent(&format!("{bank}&confirm=true")).await;
    let declined = async {
        loop {
            match look(&slow).await {
                TokenCharge::Processing { .. } => sleep(Duration::from_millis(50)).await,
                decided => break decided,
            }
        }
    };
    let declined = timeout(Duration::from_secs(20), declined).await.unwrap();
    assert!(
        matches!(&declined, TokenCharge::Failed { code, .. } if code == "card_declined"),
        "{declined:?}"
    );

    // One that is not for this order is nobody's proof, whatever its state; one that is not there may be there tomorrow.
    let other = stripe
        .make("/v1/payment_intents", "amount=50&currency=usd")
        .await;
    assert!(matches!(look(&other).await, TokenCharge::Unknown(_)));
    assert!(matches!(look("pi_unknown").await, TokenCharge::Unknown(_)));
}

/// It refuses what it does not know, and so it charges nothing: that is a failure, and an answer to a search that it does not know
/// is none.
#[tokio::test(flavor = "multi_thread")]
async fn what_localstripe_refuses_is_not_charged() {
    let Some(stripe) = LocalStripe::start().await else {
        return;
    };
    let token = GrantedToken::parse("spt_1").unwrap();
    let charged = stripe
        .charger()
        .charge_granted_token(&order(), &token, &[])
        .await;
    assert!(
        matches!(
            charged,
            TokenCharge::Failed {
                payment_intent: None,
                ..
            }
        ),
        "{charged:?}"
    );
    let all = stripe.ask("GET", "/v1/payment_intents", "").await;
    assert_eq!(all["data"], Value::Array(Vec::new()));
    assert!(stripe.charger().find_charge(&order()).await.is_err());
}

/// What it signs, with spaces and line breaks, we verify; and know which of its events concern us.
#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_localstripe_signs_are_verified_and_read() {
    let Some(stripe) = LocalStripe::start().await else {
        return;
    };
    let (taken, mut webhooks) = mpsc::unbounded_channel();
    let service = HttpService::answering(move |asked| {
        let _ = taken.send(asked);
        Reply::Answer(200, String::new())
    })
    .await;
    let endpoint = format!(
        "url={}/stripe/webhooks&secret={WEBHOOK_SECRET}",
        service.url()
    );
    stripe
        .ask("POST", "/_config/webhooks/ours", &endpoint)
        .await;
    let (subscription, _) = stripe.subscribe("purchase-1").await;
    let path = format!("/v1/subscriptions/{subscription}");
    stripe.ask("DELETE", &path, "").await;

    let secrets = WebhookSecrets::parse(WEBHOOK_SECRET).unwrap();
    let others = WebhookSecrets::parse("whsec_fedcba9876543210").unwrap();
    // They come in no order.
    let mut awaited = vec![
        "customer.created",
        "customer.subscription.created",
        "customer.subscription.deleted",
        "invoice.created",
        "invoice.payment_succeeded",
    ];
    while !awaited.is_empty() {
        let next = timeout(Duration::from_secs(20), webhooks.recv()).await;
        let webhook = next.expect("a webhook must come").unwrap();
        let (signature, body) = (webhook.header("stripe-signature"), webhook.body.as_bytes());
        let now = SystemClock.now();
        assert_eq!(secrets.verify(signature, body, now), Ok(()));
        assert!(others.verify(signature, body, now).is_err());
        let changed = webhook.body.replace("evt_", "evt-");
        assert!(secrets.verify(signature, changed.as_bytes(), now).is_err());
        let said: Value = serde_json::from_slice(body).unwrap();
        let kind = said["type"].as_str().unwrap().to_owned();
        let event = WebhookEvent::parse(body).unwrap();
        let ours = About::Subscription(subscription.clone());
        let concerns = kind.starts_with("customer.subscription.") || kind.starts_with("invoice.");
        let about = event.map(|event| (event.kind, event.live, event.about));
        assert_eq!(
            about,
            concerns.then(|| (kind.clone(), false, ours)),
            "{said}"
        );
        awaited.retain(|it| *it != kind);
    }
}
