//! Selling by Stripe as users meet it: `serve` with a config file, a key and a webhook, against a Stripe on loopback.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, reason = "of what the tests share, this one needs a part")]

#[path = "support/binary.rs"]
mod binary;
#[path = "support/fake_stripe.rs"]
mod fake_stripe;
#[path = "support/http_service.rs"]
mod http_service;
#[path = "support/raw_buyer.rs"]
mod raw_buyer;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tollkeeper::transport::nostr::DevRelay;

use binary::{Running, Scratch, mini_mcp};
use fake_stripe::{FakeStripe, KEY, LIVE_KEY, Prank, WEBHOOK_SECRET, now, post, signed};
use http_service::Reply;
use raw_buyer::{EPHEMERAL, PERSISTENT, PLAIN, RawBuyer};

const PATH: &str = "/stripe/webhooks";

/// The seed's shop, with the tools of the tests' server: `echo` is free.
const PLANS: &str = r#"
    [[rails.stripe.plan]]
    tool = "add"
    priceId = "price_once"
    paymentReason = "Payment required to use the add feature"
    [[rails.stripe.plan]]
    tool = "size"
    paymentReason = "Payment required to use the size feature"
    checkout = { success_url = "https://example.com/success", mode = "subscription", line_items = [{ price = "price_monthly", quantity = 1 }] }
    [[rails.stripe.plan]]
    capabilities = ["tool:count", "tool:fail"]
    priceId = "price_metered"
    meterEvent = "api_usage"
"#;

struct World {
    scratch: Scratch,
    relay: DevRelay,
    stripe: FakeStripe,
    webhook: String,
}

impl World {
    async fn new() -> Self {
        let stripe = FakeStripe::start().await;
        stripe.price("price_once", 999, None);
        stripe.price("price_monthly", 500, Some("licensed"));
        stripe.price("price_metered", 2, Some("metered"));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            scratch: Scratch::new(),
            relay: DevRelay::start(0).await.unwrap(),
            stripe,
            webhook: free.local_addr().unwrap().to_string(),
        }
    }

    /// `[rails.stripe]` with `more` keys, and then other sections.
    fn config(&self, more: &str, sections: &str) -> String {
        let url = self.stripe.url();
        let text = format!(
            "ledger = \"books.db\"\n[rails.stripe]\nbase_url = \"{url}\"\nsuccess_url = \"https://example.com/success\"\n{more}\n{sections}"
        );
        self.scratch.write("shop.toml", &text).display().to_string()
    }

    fn seller(&self, command: &str, config: &str) -> Command {
        let mut seller = self.scratch.tollkeeper("seller");
        seller
            .env("STRIPE_SECRET_KEY", KEY)
            .env("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET)
            .stdin(Stdio::null())
            .args([command, "--json", "--config", config])
            .args(["--log", "trace,tollkeeper=trace"]);
        if command == "serve" {
            seller
                .args(["--relay", &self.relay.url()])
                .args(["--stripe-webhook", &self.webhook]);
        }
        seller
    }

    async fn serve(&self, config: &str) -> (Running, String) {
        let mut command = self.seller("serve", config);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        command.arg("--").args(mini_mcp());
        spawn_blocking(move || {
            let server = Running::start_logging(command, log);
            let ready = server.next().expect("serve must become ready");
            let npub = ready["npub"].as_str().unwrap().to_owned();
            (server, npub)
        })
        .await
        .unwrap()
    }

    fn log(&self) -> std::path::PathBuf {
        self.scratch.path("serve.log")
    }

    async fn call(&self, npub: &str, home: &str, words: &[&str]) -> Value {
        let mut command = self.scratch.tollkeeper(home);
        command
            .stdin(Stdio::null())
            .args(["call", npub])
            .args(words)
            .args(["--relay", &self.relay.url(), "--timeout", "30", "--json"]);
        last_line(&run(command).await)
    }

    /// The webhook about `object`, as Stripe sends it.
    async fn webhook(&self, kind: &str, object: &str) -> (u16, String) {
        let event = self.stripe.event(kind, object);
        self.stripe.send(&self.webhook, &event).await
    }

    /// Calls until it is served: the webhook was answered before it was acted upon.
    async fn served(&self, npub: &str, home: &str, words: &[&str]) -> Value {
        for _ in 0..20 {
            let answer = self.call(npub, home, words).await;
            if answer["event"] == "result" {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never served: {words:?}")
    }
}

async fn run(mut command: Command) -> Output {
    spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or("null")).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The session that a demand is about.
fn session_of(answer: &Value) -> String {
    assert_eq!(answer["code"], -32042, "{answer}");
    let url = answer["data"]["payment_options"][0]["pay_req"].as_str();
    session_in(url.unwrap())
}

fn session_in(url: &str) -> String {
    let last = url.rsplit('/').next().unwrap();
    last.split('#').next().unwrap().to_owned()
}

/// The flow of the seed: free, once, by subscription, by use.
#[tokio::test(flavor = "multi_thread")]
async fn a_free_a_bought_a_subscribed_and_a_metered_tool_are_sold_from_a_config_file() {
    let world = World::new().await;
    let config = world.config("", PLANS);
    let (mut server, npub) = world.serve(&config).await;
    let echo = ["tool:echo", "text=hello"];
    assert_eq!(world.call(&npub, "a", &echo).await["event"], "result");

    let add = ["tool:add", "a=1", "b=2"];
    let demand = world.call(&npub, "a", &add).await;
    let option = &demand["data"]["payment_options"][0];
    assert_eq!(option["pmi"], "stripe-checkout-url");
    assert_eq!(
        option["description"],
        "Payment required to use the add feature"
    );
    let session = session_of(&demand);
    let again = world.call(&npub, "a", &["tool:add", "a=3", "b=4"]).await;
    assert_eq!(session_of(&again), session, "one page for one tool");
    world.stripe.pay(&session);
    let received = world.webhook("checkout.session.completed", &session).await;
    assert_eq!(received, (200, r#"{"received":true}"#.to_owned()));
    world.served(&npub, "a", &add).await;
    let other = world.call(&npub, "b", &add).await;
    assert_ne!(session_of(&other), session, "somebody else has not paid");

    let size = ["tool:size", "text=four"];
    let session = session_of(&world.call(&npub, "a", &size).await);
    world.stripe.pay(&session);
    world.webhook("checkout.session.completed", &session).await;
    world.served(&npub, "a", &size).await;
    let subscription = world.stripe.object(&session)["subscription"].clone();
    let subscription = subscription.as_str().unwrap();
    world.stripe.subscription(subscription, "canceled");
    world
        .webhook("customer.subscription.deleted", subscription)
        .await;
    let mut after = world.call(&npub, "a", &size).await;
    for _ in 0..20 {
        if after["event"] == "error" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        after = world.call(&npub, "a", &size).await;
    }
    assert_ne!(session_of(&after), session);

    let session = session_of(&world.call(&npub, "a", &["tool:count"]).await);
    world.stripe.pay(&session);
    world.served(&npub, "a", &["tool:count"]).await;
    world.served(&npub, "a", &["tool:fail"]).await;
    world.served(&npub, "a", &["tool:count"]).await;
    for _ in 0..50 {
        if world.stripe.metered().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let counted = world.stripe.metered();
    assert_eq!(counted.len(), 2, "what failed is not counted: {counted:?}");
    server.terminate();
    assert!(
        spawn_blocking(move || server.wait())
            .await
            .unwrap()
            .success()
    );

    let log = std::fs::read_to_string(world.log()).unwrap();
    for secret in [KEY, WEBHOOK_SECRET, "checkout.stripe.example"] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
    assert!(
        world
            .stripe
            .all("customer")
            .iter()
            .all(|c| c["email"].is_null())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hides_error_data_is_told_in_a_result() {
    let world = World::new().await;
    let config = world.config("demand = \"tool_result\"", PLANS);
    let (_server, npub) = world.serve(&config).await;
    let answer = world.call(&npub, "a", &["tool:add", "a=1", "b=2"]).await;
    let result = &answer["result"];
    assert_eq!(result["isError"], true, "{answer}");
    let text = result["content"][0]["text"].as_str().unwrap();
    let text: Value = serde_json::from_str(text).unwrap();
    let url = text["data"]["checkoutUrl"].as_str().unwrap();
    world.stripe.pay(&session_in(url));
    let answer = world.call(&npub, "a", &["tool:add", "a=1", "b=2"]).await;
    assert_eq!(answer["result"]["content"][0]["text"], "3", "{answer}");
}

/// The seed's environment.
#[tokio::test(flavor = "multi_thread")]
async fn the_price_may_be_in_the_environment() {
    let world = World::new().await;
    let config = world.config("", "[[rails.stripe.plan]]\ntool = \"add\"");
    let mut command = world.seller("check", &config);
    let without = run(world.seller("check", &config)).await;
    assert_eq!(without.status.code(), Some(2));
    assert!(said(&without).contains("STRIPE_PRICE_ID"));
    command.env("STRIPE_PRICE_ID", "price_once");
    let checked = run(command).await;
    let lines = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    assert!(lines.contains("9.99") || lines.contains("999"), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_at_a_price_in_dollars_is_paid_on_a_page() {
    let world = World::new().await;
    let price = "[[price]]\ncapability = \"tool:add\"\namount = 100\nunit = \"usd-cents\"";
    let config = world.config("", price);
    let (_server, npub) = world.serve(&config).await;
    let add = [
        "tool:add",
        "a=1",
        "b=2",
        "--payment-interaction",
        "explicit_gating",
    ];
    let demand = world.call(&npub, "a", &add).await;
    let ttl = demand["data"]["payment_options"][0]["ttl"]
        .as_u64()
        .unwrap();
    assert!(ttl > 1800, "{ttl}");
    let session = session_of(&demand);
    world.stripe.pay(&session);
    world.webhook("checkout.session.completed", &session).await;
    let answer = world.served(&npub, "a", &add).await;
    assert_eq!(answer["result"]["content"][0]["text"], "3");
    assert_ne!(
        session_of(&world.call(&npub, "a", &add).await),
        session,
        "one call"
    );
    // Transparent, without asking for the method: nobody waits for a person.
    let refused = world.call(&npub, "b", &add[..3]).await;
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("stripe-checkout-url"),
        "{refused}"
    );
}

const CHARGE: &str = "POST /v1/payment_intents";

/// A dollar a call, by page or by token.
const A_DOLLAR: &str = "[[price]]\ncapability = \"tool:*\"\namount = 100\nunit = \"usd-cents\"";

/// A token that its wallet has granted for up to ten dollars.
fn granted(stripe: &FakeStripe, id: &str, card: &str) {
    stripe.put(&json!({
        "id": id, "object": "shared_payment.granted_token", "payment_method": card,
        "usage_limits": { "max_amount": "1000", "currency": "usd" },
    }));
}

fn kinds(answers: &[Value]) -> Vec<String> {
    let kind = |answer: &Value| match (answer["method"].as_str(), answer["error"]["code"].as_i64())
    {
        (Some(method), _) => method.rsplit('/').next().unwrap_or_default().to_owned(),
        (None, Some(code)) => code.to_string(),
        (None, None) => "result".to_owned(),
    };
    answers.iter().map(kind).collect()
}

fn token(token: &str) -> [&str; 3] {
    ["direct_payment", "stripe-spt-direct", token]
}

/// Neither in the log nor in the books.
fn kept_nowhere(world: &World, tokens: &[&str]) {
    let mut kept = std::fs::read(world.log()).unwrap();
    for file in ["books.db", "books.db-wal"] {
        kept.extend(std::fs::read(world.scratch.path(file)).unwrap_or_default());
    }
    let kept = String::from_utf8_lossy(&kept);
    for token in tokens {
        assert!(!kept.contains(token), "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_others_could_read_or_that_is_declined_pays_for_nothing() {
    let world = World::new().await;
    let config = world.config("profile = \"profile_test\"", A_DOLLAR);
    let checked = run(world.seller("check", &config)).await;
    let lines = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(lines.contains("stripe-spt-direct"), "{lines}");
    let (_server, npub) = world.serve(&config).await;
    let mut buyer = RawBuyer::connect(&world.relay.url(), &npub).await;
    granted(&world.stripe, "spt_exposed1", "pm_card_visa");
    granted(&world.stripe, "spt_declined1", "pm_card_chargeDeclined");
    let count = json!({});

    let exposed = buyer.call(1, "count", &count, &[&token("spt_exposed1")]);
    let answers = buyer.ask(&exposed, PLAIN).await;
    assert_eq!(kinds(&answers), ["payment_rejected", "-32000"]);
    let said = answers[0]["params"]["message"].as_str().unwrap();
    assert!(said.contains("revoke"), "{said}");
    assert!(world.stripe.asked(CHARGE).is_empty());

    let declined = buyer.call(2, "count", &count, &[&token("spt_declined1")]);
    let answers = buyer.ask(&declined, EPHEMERAL).await;
    assert_eq!(kinds(&answers), ["payment_rejected", "-32000"]);
    let said = answers[1]["error"]["message"].as_str().unwrap();
    assert!(said.contains("declined; nothing was taken"), "{said}");
    assert_eq!(world.stripe.asked(CHARGE).len(), 1);
    assert_eq!(world.scratch.executions(), 0);
    kept_nowhere(&world, &["spt_exposed1", "spt_declined1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_comes_with_the_call_under_encryption_is_charged_once() {
    let world = World::new().await;
    let config = world.config("profile = \"profile_test\"", A_DOLLAR);
    let (_server, npub) = world.serve(&config).await;
    let mut buyer = RawBuyer::connect(&world.relay.url(), &npub).await;
    let add = json!({"a": 1, "b": 2});
    let gated: &[&str] = &["payment_interaction", "explicit_gating"];
    let plainly: &[&str] = &["payment_interaction", "transparent"];
    let tokens = ["spt_wrapped1", "spt_wrapped2"];
    for (id, kind, mode) in [(0, EPHEMERAL, plainly), (1, PERSISTENT, gated)] {
        let spt = tokens[id];
        let id = i64::try_from(id).unwrap();
        granted(&world.stripe, spt, "pm_card_visa");
        let call = buyer.call(id, "add", &add, &[&token(spt), mode]);
        let answers = buyer.ask(&call, kind).await;
        assert_eq!(kinds(&answers), ["payment_accepted", "result"]);
        let paid = &answers[0]["params"];
        assert_eq!(
            (&paid["amount"], &paid["pmi"]),
            (&json!(100), &json!("stripe-spt-direct"))
        );
        assert_eq!(answers[1]["result"]["content"][0]["text"], "3");
        assert_eq!(buyer.ask(&call, kind).await, answers[1..], "the same again");
        let four = json!({"text": "four"});
        let other = buyer.call(id + 10, "size", &four, &[&token(spt), mode]);
        let answers = buyer.ask(&other, kind).await;
        assert_eq!(kinds(&answers), ["payment_rejected", "-32000"]);
    }
    let intents = world.stripe.all("payment_intent");
    let paid: Vec<_> = intents
        .iter()
        .map(|i| (&i["status"], &i["amount"]))
        .collect();
    assert_eq!(paid, [(&json!("succeeded"), &json!(100)); 2]);
    kept_nowhere(&world, &tokens);
}

/// Stripe has charged, and the process is killed before it hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_the_charge_and_its_answer_neither_loses_nor_repeats_it() {
    let world = World::new().await;
    let config = world.config("profile = \"profile_test\"", A_DOLLAR);
    let (mut server, npub) = world.serve(&config).await;
    let mut buyer = RawBuyer::connect(&world.relay.url(), &npub).await;
    granted(&world.stripe, "spt_1", "pm_card_visa");
    world.stripe.prank(CHARGE, Prank::AfterDoing(Reply::Hang));
    let call = buyer.call(1, "count", &json!({}), &[&token("spt_1")]);
    buyer.send(&call, EPHEMERAL).await;
    for _ in 0..400 {
        if !world.stripe.all("payment_intent").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    server.kill();
    let (_server, _) = world.serve(&config).await;
    // The same event, and the same token with another one.
    let answers = buyer.ask(&call, EPHEMERAL).await;
    assert_eq!(kinds(&answers).last().unwrap(), "result", "{answers:?}");
    let again = buyer.call(2, "count", &json!({}), &[&token("spt_1")]);
    let again = buyer.ask(&again, EPHEMERAL).await;
    assert_eq!(
        again.last().unwrap()["result"],
        answers.last().unwrap()["result"]
    );
    assert_eq!(world.stripe.all("payment_intent").len(), 1);
    assert_eq!(world.scratch.executions(), 1);
}

/// Money that was paid ahead, and a licence, go when their payment is given back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sold_for_money_that_is_given_back_goes() {
    let world = World::new().await;
    let sections = r#"
        [[price]]
        capability = "tool:add"
        amount = 100
        unit = "usd-cents"
        [balance]
        unit = "usd-cents"
        min_top_up = 100
        max_top_up = 1000
        [licence_sale]
        amount = 500
        unit = "usd-cents"
        days = 30
        covers = ["tool:add"]
    "#;
    let (_server, npub) = world.serve(&world.config("", sections)).await;
    let gated = ["--payment-interaction", "explicit_gating"];
    let call = async |words: &[&str]| world.call(&npub, "a", &[words, &gated].concat()).await;
    let buy = async |words: &[&str]| {
        let session = session_of(&call(words).await);
        world.stripe.pay(&session);
        world.webhook("checkout.session.completed", &session).await;
        let words = [words, &gated].concat();
        world.served(&npub, "a", &words).await;
        session
    };
    let books = async |words: &[&str]| {
        let ledger = world.scratch.path("books.db").display().to_string();
        let mut command = world.scratch.tollkeeper("seller");
        command.args(words).args(["--json", "--ledger", &ledger]);
        last_line(&run(command).await)
    };
    let top_up = buy(&["tool:top_up", "amount=300"]).await;
    let add = ["tool:add", "a=1", "b=2"];
    assert_eq!(call(&add).await["event"], "result");
    assert_eq!(books(&["ledger", "balance"]).await["amount"], 200);
    let licence = buy(&["tool:buy_licence"]).await;
    assert!(books(&["licence", "list"]).await["revoked_at"].is_null());

    for session in [&top_up, &licence, &top_up] {
        let intent = world.stripe.object(session)["payment_intent"].clone();
        let intent = intent.as_str().unwrap();
        world.stripe.refund(intent, None);
        let charge = world.stripe.object(intent)["latest_charge"].clone();
        world
            .webhook("charge.refunded", charge.as_str().unwrap())
            .await;
    }
    let mut left = Value::Null;
    for _ in 0..50 {
        left = books(&["ledger", "balance"]).await["amount"].clone();
        let licence = books(&["licence", "list"]).await;
        if left == 0 && !licence["revoked_at"].is_null() {
            // What was spent stays spent, and is not owed.
            session_of(&call(&add).await);
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("still there: {left}, {}", books(&["licence", "list"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_stripe_has_signed_is_received() {
    let world = World::new().await;
    let config = world.config("", PLANS);
    let mut command = world.seller("serve", &config);
    command.env(
        "STRIPE_WEBHOOK_SECRET",
        format!("whsec_the_former_one_x, {WEBHOOK_SECRET}"),
    );
    command.arg("--").args(mini_mcp());
    let server = spawn_blocking(move || {
        let server = Running::start(command);
        server.next().expect("ready");
        server
    })
    .await
    .unwrap();
    let address = world.webhook.as_str();
    let body = world
        .stripe
        .event("checkout.session.completed", "nothing")
        .to_string();
    let body = body.replace("\"object\":null", "\"object\":{\"id\":\"cs_test_1\"}");
    let good = signed(&body, now(), WEBHOOK_SECRET);
    let received = (200, r#"{"received":true}"#.to_owned());
    for (signature, sent) in [
        (good.clone(), body.clone()),
        (signed(&body, now(), "whsec_the_former_one_x"), body.clone()),
        // Twice.
        (good.clone(), body.clone()),
    ] {
        assert_eq!(post(address, PATH, Some(&signature), &sent).await, received);
    }
    let of_no_concern = world
        .stripe
        .event("customer.created", "nothing")
        .to_string();
    let signature = signed(&of_no_concern, now(), WEBHOOK_SECRET);
    assert_eq!(
        post(address, PATH, Some(&signature), &of_no_concern).await,
        received
    );
    let tampered = body.replace("cs_test_1", "cs_test_2");
    for (signature, sent) in [
        (None, body.as_str()),
        (Some(String::new()), &body),
        (Some(good.clone()), &tampered),
        (Some(good.clone()), &body.replace(':', ": ")),
        (Some(signed(&body, now() - 400, WEBHOOK_SECRET)), &body),
        (Some(signed(&body, now() + 400, WEBHOOK_SECRET)), &body),
        (Some(signed(&body, now(), "whsec_somebody_elses")), &body),
        (Some(signed("{}", now(), WEBHOOK_SECRET)), "{}"),
        (Some(signed("nonsense", now(), WEBHOOK_SECRET)), "nonsense"),
    ] {
        let (status, said) = post(address, PATH, signature.as_deref(), sent).await;
        assert_eq!(status, 400, "{said}");
        assert!(said.contains("Webhook Error"), "{said}");
    }
    let long = "x".repeat(2 * 1024 * 1024);
    let signature = signed(&long, now(), WEBHOOK_SECRET);
    let (status, _) = post(address, PATH, Some(&signature), &long).await;
    assert!(
        status == 400 || status == 0,
        "{status}: too long, or cut off"
    );
    assert_eq!(post(address, "/", Some(&good), &body).await.0, 404);
    assert_eq!(
        post(address, "/stripe/webhooks/x", Some(&good), &body)
            .await
            .0,
        404
    );
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_no_webhook_is_received() {
    let world = World::new().await;
    let config = world.config("", PLANS);
    let mut command = world.seller("serve", &config);
    command.env_remove("STRIPE_WEBHOOK_SECRET");
    command.arg("--").args(mini_mcp());
    let server = spawn_blocking(move || {
        let server = Running::start(command);
        server.next().expect("ready");
        server
    })
    .await
    .unwrap();
    let event = world.stripe.event("checkout.session.completed", "nothing");
    assert_eq!(world.stripe.send(&world.webhook, &event).await.0, 503);
    drop(server);
}

/// The process is killed after the webhook was received, while Stripe cannot be asked; the next start grants.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_the_webhook_and_the_grant_loses_nothing() {
    let world = World::new().await;
    let config = world.config("", PLANS);
    let (mut server, npub) = world.serve(&config).await;
    let add = ["tool:add", "a=1", "b=2"];
    let session = session_of(&world.call(&npub, "a", &add).await);
    world.stripe.pay(&session);
    let event = world.stripe.event("checkout.session.completed", &session);
    world.stripe.down(true);
    assert_eq!(world.stripe.send(&world.webhook, &event).await.0, 200);
    server.kill();
    world.stripe.down(false);
    let (_server, npub) = world.serve(&config).await;
    // Found by acting upon the webhook, not by the buyer's asking.
    for _ in 0..50 {
        if !world
            .stripe
            .asked(&format!("GET /v1/checkout/sessions/{session}"))
            .is_empty()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.served(&npub, "a", &add).await;
    assert_eq!(world.stripe.all("checkout.session").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_at_the_start_by_their_key() {
    let world = World::new().await;
    let small = "[[price]]\ncapability = \"tool:add\"\namount = 49\nunit = \"usd-cents\"";
    let wrong_amount =
        "[[rails.stripe.plan]]\ntool = \"add\"\npriceId = \"price_once\"\namount = 5";
    let wrong_mode =
        "[[rails.stripe.plan]]\ntool = \"add\"\npriceId = \"price_once\"\nmode = \"subscription\"";
    let unknown = "[[rails.stripe.plan]]\ntool = \"add\"\npriceId = \"price_nowhere\"";
    let no_meter = "[[rails.stripe.plan]]\ntool = \"add\"\npriceId = \"price_metered\"";
    let twice = format!(
        "{small}\n{}",
        "[[rails.stripe.plan]]\ntool = \"add\"\npriceId = \"price_once\""
    );
    for (key, more, sections, named) in [
        (KEY, "", small, "tool:add"),
        (KEY, "", wrong_amount, "amount"),
        (KEY, "", wrong_mode, "mode"),
        (KEY, "", unknown, "price_nowhere"),
        (KEY, "", no_meter, "meterEvent"),
        (KEY, "", &twice, "tool:add"),
        (KEY, "page_ttl = 60", PLANS, "page_ttl"),
        (KEY, "live = true", PLANS, "live"),
        (LIVE_KEY, "", PLANS, "live"),
        ("sk_test_unknown", "", PLANS, "key"),
        ("pk_test_public", "", PLANS, "STRIPE_SECRET_KEY"),
        ("", "", PLANS, "STRIPE_SECRET_KEY"),
    ] {
        let config = world.config(more, sections);
        let mut command = world.seller("serve", &config);
        command.env("STRIPE_SECRET_KEY", key);
        command.arg("--").args(mini_mcp());
        let output = run(command).await;
        let said = said(&output);
        // What is complained about, not what is traced.
        let complaint = |line: &&str| !line.contains(" TRACE ") && !line.contains(" DEBUG ");
        let last = said.lines().rfind(complaint);
        let last = last.unwrap_or_default().to_owned();
        assert_eq!(output.status.code(), Some(2), "{named}: {last}");
        assert!(last.contains(named), "{named}: {last}");
        assert!(key.is_empty() || !said.contains(key), "{named}: {last}");
    }
}

/// Said once, it is remembered for this key and this ledger, and for no other.
#[tokio::test(flavor = "multi_thread")]
async fn live_mode_is_said_once_for_each_key_and_ledger() {
    let world = World::new().await;
    let call = "[[price]]\ncapability = \"tool:add\"\namount = 50\nunit = \"usd-cents\"";
    let live = |command: &str, more: &str| {
        let config = world.config(more, call);
        let mut seller = world.seller(command, &config);
        seller.env("STRIPE_SECRET_KEY", LIVE_KEY);
        seller
    };
    let refused = async |mut seller: Command, words: &[&str]| {
        seller.args(words);
        let output = run(seller).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("rails.stripe.live: "), "{said}");
        assert!(!said.contains(LIVE_KEY), "{said}");
    };
    let opens = async |mut seller: Command| {
        seller.arg("--").args(mini_mcp());
        spawn_blocking(move || {
            let mut server = Running::start(seller);
            assert_eq!(server.next().unwrap()["event"], "ready");
            server.terminate();
            assert!(server.wait().success());
        })
        .await
        .unwrap();
    };
    let [python, script] = mini_mcp();
    let server = ["--", &python, &script];
    let other = world.scratch.path("other.db").display().to_string();
    refused(live("serve", ""), &server).await;
    refused(live("check", ""), &[]).await;
    opens(live("serve", "live = true")).await;
    opens(live("serve", "")).await;
    let output = run(live("check", "")).await;
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.contains("Stripe, live, as was said on 20"), "{lines}");

    // Another ledger knows nothing of it, nor does this one of another key; one that forgets is told each time.
    let other = ["--ledger", &other];
    refused(live("serve", ""), &[&other[..], &server].concat()).await;
    refused(live("check", ""), &other).await;
    let forgetful = [&["--ledger", "memory"][..], &server].concat();
    refused(live("serve", ""), &forgetful).await;
    let mut another = live("serve", "");
    another.env("STRIPE_SECRET_KEY", format!("{LIVE_KEY}2"));
    refused(another, &server).await;
    for file in ["books.db", "books.db-wal"] {
        let bytes = std::fs::read(world.scratch.path(file)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&bytes).contains(LIVE_KEY));
    }
}

/// Stripe is down when the server starts: what was bought is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_stripe_serves_who_has_paid() {
    let world = World::new().await;
    let plan = "[[rails.stripe.plan]]\ntool = \"add\"\npriceId = \"price_once\"\nmode = \"payment\"\namount = 999\nunit = \"usd-cents\"";
    let config = world.config("", plan);
    let (mut server, npub) = world.serve(&config).await;
    let add = ["tool:add", "a=1", "b=2"];
    world
        .stripe
        .pay(&session_of(&world.call(&npub, "a", &add).await));
    world.served(&npub, "a", &add).await;
    server.terminate();
    spawn_blocking(move || server.wait()).await.unwrap();
    world.stripe.down(true);
    let (_server, npub) = world.serve(&config).await;
    let answer = world.call(&npub, "a", &add).await;
    assert_eq!(answer["result"]["content"][0]["text"], "3", "{answer}");
    assert_eq!(world.call(&npub, "b", &add).await["code"], -32000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_is_sound() {
    let world = World::new().await;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/stripe.toml");
    let text = std::fs::read_to_string(example).unwrap();
    let fake = format!("base_url = \"{}\" #", world.stripe.url());
    let text = text.replace("# base_url = \"http://127.0.0.1:12111\"", &fake);
    let config = world
        .scratch
        .write("example.toml", &text)
        .display()
        .to_string();
    let output = run(world.seller("check", &config)).await;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for part in [
        "tool:wporg_query_themes",
        "tool:metered_tool",
        "stripe-checkout-url",
    ] {
        assert!(lines.contains(part), "{part} in {lines}");
    }
}
