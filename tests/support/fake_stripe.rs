//! A Stripe that keeps honest books and fails as the test says: Checkout, prices, customers, subscriptions, meters, shared
//! payment tokens, refunds, disputes, webhooks with real signatures, idempotency keys.
//!
//! It speaks version 2026-10-28 of the API as far as it goes; `tests/real_stripe.rs` has the official library drive it.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http_service::{Asked, HttpService, Reply};

/// The key that it knows.
pub(crate) const KEY: &str = "sk_test_51FakeFakeFake";
/// A live key, which it knows as well. Its money is not real either.
pub(crate) const LIVE_KEY: &str = "sk_live_51FakeFakeFake";
/// What it signs its webhooks with.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_fake_0123456789abcdef";

/// What it does instead of what it should, with the next question whose `METHOD /path` begins so.
pub(crate) enum Prank {
    /// Answers this, and does nothing.
    Reply(Reply),
    /// Does it, and answers this.
    AfterDoing(Reply),
    /// Does it, and changes the answer.
    Lie(Box<dyn Fn(&mut Value) + Send>),
}

#[derive(Default)]
struct Books {
    objects: BTreeMap<String, Value>,
    made: u64,
    /// By idempotency key: what was asked, and what was answered.
    done: HashMap<String, (String, u16, Value)>,
    pranks: VecDeque<(String, Prank)>,
    asked: Vec<Asked>,
    down: bool,
    behind: bool,
}

/// It.
pub(crate) struct FakeStripe {
    service: HttpService,
    books: Arc<Mutex<Books>>,
}

type Answer = Result<Value, (u16, Value)>;

impl FakeStripe {
    pub(crate) async fn start() -> Self {
        let books = Arc::new(Mutex::new(Books::default()));
        let asked = Arc::clone(&books);
        let service =
            HttpService::answering(move |question| asked.lock().unwrap().answer(&question)).await;
        Self { service, books }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        self.service.url()
    }

    /// Plays `prank` on the next question that begins like this, after those that wait already.
    pub(crate) fn prank(&self, question: &str, prank: Prank) {
        self.books().pranks.push_back((question.to_owned(), prank));
    }

    pub(crate) fn lie(&self, question: &str, lie: impl Fn(&mut Value) + Send + 'static) {
        self.prank(question, Prank::Lie(Box::new(lie)));
    }

    /// Answers nothing any more, or again.
    pub(crate) fn down(&self, down: bool) {
        self.books().down = down;
    }

    /// Has the search find nothing: Stripe's runs behind, up to a minute.
    pub(crate) fn search_is_behind(&self) {
        self.books().behind = true;
    }

    /// Everything that was asked, whose `METHOD /path` begins like this.
    pub(crate) fn asked(&self, question: &str) -> Vec<Asked> {
        let of = |asked: &&Asked| format!("{} {}", asked.method, asked.path).starts_with(question);
        self.books().asked.iter().filter(of).cloned().collect()
    }

    pub(crate) fn object(&self, id: &str) -> Value {
        self.books().objects.get(id).cloned().unwrap_or_default()
    }

    /// All objects of this kind, the oldest first.
    pub(crate) fn all(&self, kind: &str) -> Vec<Value> {
        self.books().all(kind)
    }

    /// Writes an object of the test's own.
    pub(crate) fn put(&self, object: &Value) {
        let id = object["id"].as_str().unwrap().to_owned();
        self.books().objects.insert(id, object.clone());
    }

    /// A product with one price; `recurring` is `None`, or `licensed`, or `metered`.
    pub(crate) fn price(&self, id: &str, cents: u64, recurring: Option<&str>) {
        let mut books = self.books();
        let product = books.make(
            "prod",
            json!({ "object": "product", "name": id, "active": true }),
        );
        let recurring = recurring.map(|usage| json!({ "interval": "month", "usage_type": usage }));
        let kind = if recurring.is_some() {
            "recurring"
        } else {
            "one_time"
        };
        let price = json!({
            "id": id, "object": "price", "active": true, "currency": "usd", "unit_amount": cents,
            "product": product["id"], "type": kind, "recurring": recurring, "livemode": false,
        });
        books.objects.insert(id.to_owned(), price);
    }

    /// Somebody pays the session. Nobody is told.
    pub(crate) fn pay(&self, session: &str) {
        self.books().pay(session);
    }

    /// Somebody finishes the session with a method that takes days.
    pub(crate) fn pay_later(&self, session: &str) {
        let mut books = self.books();
        let session = books.objects.get_mut(session).unwrap();
        session["status"] = "complete".into();
        session["url"] = Value::Null;
    }

    /// The time of the session is over.
    pub(crate) fn expire(&self, session: &str) {
        let mut books = self.books();
        let session = books.objects.get_mut(session).unwrap();
        session["status"] = "expired".into();
        session["url"] = Value::Null;
    }

    /// Sets the status of a subscription.
    pub(crate) fn subscription(&self, id: &str, status: &str) {
        self.books().objects.get_mut(id).unwrap()["status"] = status.into();
    }

    /// Gives the money of a PaymentIntent back, all of it or a part.
    pub(crate) fn refund(&self, payment_intent: &str, part: Option<u64>) {
        self.books().refund(payment_intent, part);
    }

    /// The payer's bank wants it back.
    pub(crate) fn dispute(&self, payment_intent: &str) -> String {
        let mut books = self.books();
        let charge = books.objects[payment_intent]["latest_charge"].clone();
        let dispute = books.make(
            "dp",
            json!({ "object": "dispute", "status": "needs_response", "charge": charge, "payment_intent": payment_intent }),
        );
        let charge = books.objects.get_mut(charge.as_str().unwrap()).unwrap();
        charge["disputed"] = true.into();
        dispute["id"].as_str().unwrap().to_owned()
    }

    /// The next period of a subscription is paid for. Returns the PaymentIntent.
    pub(crate) fn renew(&self, subscription: &str) -> String {
        self.books().invoice(subscription)
    }

    /// An event about an object as it is now.
    pub(crate) fn event(&self, kind: &str, object: &str) -> Value {
        let mut books = self.books();
        let object = books.objects.get(object).cloned().unwrap_or_default();
        books.make(
            "evt",
            json!({
                "object": "event", "type": kind, "api_version": "2026-10-28.endive", "data": { "object": object },
                "pending_webhooks": 1, "request": { "id": null, "idempotency_key": null },
            }),
        )
    }

    /// Sends `event` to `address` (host and port), signed now. Returns status and body.
    pub(crate) async fn send(&self, address: &str, event: &Value) -> (u16, String) {
        let body = event.to_string();
        post(
            address,
            "/stripe/webhooks",
            Some(&signed(&body, now(), WEBHOOK_SECRET)),
            &body,
        )
        .await
    }

    /// The values that were counted for a meter, by identifier.
    pub(crate) fn metered(&self) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = self.all("billing.meter_event");
        events
            .iter()
            .map(|event| {
                let payload = &event["payload"];
                (
                    text(&event["identifier"]),
                    text(&payload["stripe_customer_id"]),
                    text(&payload["value"]),
                )
            })
            .collect()
    }
}

/// The header that signs `body`.
pub(crate) fn signed(body: &str, at: u64, secret: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{at}.{body}").as_bytes());
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t={at},v1={hex}")
}

/// Posts `body` as Stripe posts its webhooks.
pub(crate) async fn post(
    address: &str,
    path: &str,
    signature: Option<&str>,
    body: &str,
) -> (u16, String) {
    let signature = signature.map_or(String::new(), |text| {
        format!("stripe-signature: {text}\r\n")
    });
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{signature}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut answer = String::new();
    // Whoever refuses may do so before everything is sent.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body.as_bytes()).await;
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    answer.push_str(&String::from_utf8_lossy(&read));
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or(0), body.to_owned())
}

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs()
}

fn error(status: u16, kind: &str, code: &str, message: &str) -> (u16, Value) {
    let said = json!({ "error": { "type": kind, "code": code, "message": message } });
    (status, said)
}

fn missing(param: &str) -> (u16, Value) {
    let mut said = error(400, "invalid_request_error", "parameter_missing", "missing");
    said.1["error"]["param"] = param.into();
    said
}

fn not_found() -> (u16, Value) {
    error(
        404,
        "invalid_request_error",
        "resource_missing",
        "No such object",
    )
}

impl Books {
    fn answer(&mut self, asked: &Asked) -> Reply {
        self.asked.push(asked.clone());
        let question = format!("{} {}", asked.method, asked.path);
        let prank = self
            .pranks
            .iter()
            .position(|(begins, _)| question.starts_with(begins.as_str()));
        let prank = prank
            .and_then(|at| self.pranks.remove(at))
            .map(|(_, prank)| prank);
        if self.down {
            return Reply::Drop;
        }
        if let Some(Prank::Reply(reply)) = prank {
            return reply;
        }
        let (status, mut body) = self.judge(asked);
        match prank {
            Some(Prank::AfterDoing(reply)) => return reply,
            Some(Prank::Lie(lie)) => lie(&mut body),
            _ => {}
        }
        Reply::Answer(status, body.to_string())
    }

    fn judge(&mut self, asked: &Asked) -> (u16, Value) {
        let known = [
            format!("Bearer {KEY}"),
            format!("Bearer {LIVE_KEY}"),
            format!("Basic {}", "c2tfdGVzdDo="),
        ];
        if asked
            .header("authorization")
            .is_none_or(|key| !known.iter().any(|k| k == key))
        {
            return error(401, "invalid_request_error", "", "Invalid API Key provided");
        }
        if asked.header("stripe-version").is_none() {
            return error(400, "invalid_request_error", "version", "no version");
        }
        let key = asked
            .header("idempotency-key")
            .filter(|_| asked.method == "POST");
        let what = format!("{} {}", asked.path, asked.body);
        if let Some(key) = key
            && let Some((before, status, body)) = self.done.get(key)
        {
            if *before != what {
                return error(400, "idempotency_error", "", "Keys for idempotent requests");
            }
            return (*status, body.clone());
        }
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let params = fields(if asked.method == "GET" {
            query
        } else {
            &asked.body
        });
        let mut parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        parts.retain(|part| !part.is_empty());
        let answer = self.act(&asked.method, &parts, &params);
        let (status, body) = match answer {
            Ok(object) => (200, self.expanded(object, &params["expand"])),
            Err((status, body)) => (status, body),
        };
        if let Some(key) = key {
            let done = (what, status, body.clone());
            self.done.insert(key.to_owned(), done);
        }
        (status, body)
    }

    fn act(&mut self, method: &str, path: &[&str], params: &Value) -> Answer {
        match (method, path) {
            ("GET", ["account"]) => Ok(json!({ "id": "acct_fake", "object": "account" })),
            ("POST", ["products"]) => Ok(self.make_of("prod", "product", params)),
            ("POST", ["prices"]) => self.make_price(params),
            ("POST", ["customers"]) => Ok(self.make_of("cus", "customer", params)),
            ("POST", ["checkout", "sessions"]) => self.make_session(params),
            ("POST", ["checkout", "sessions", id, "expire"]) => {
                let session = self.objects.get_mut(*id).ok_or_else(not_found)?;
                if session["status"] != "open" {
                    return Err(error(400, "invalid_request_error", "", "not open"));
                }
                session["status"] = "expired".into();
                Ok(session.clone())
            }
            ("POST", ["payment_intents"]) => self.make_intent(params),
            ("GET", ["payment_intents", "search"]) => {
                let query = params["query"].as_str().unwrap_or_default();
                let mut found = self.all("payment_intent");
                found.retain(|intent| {
                    if self.behind {
                        return false;
                    }
                    let facts = intent["metadata"].as_object().into_iter().flatten();
                    facts.into_iter().any(|(name, value)| {
                        query
                            == format!(
                                "metadata['{name}']:'{}'",
                                value.as_str().unwrap_or_default()
                            )
                    })
                });
                Ok(json!({ "object": "search_result", "data": found, "has_more": false }))
            }
            ("POST", ["test_helpers", "shared_payment", "granted_tokens"]) => {
                let mut token = self.make_of("spt", "shared_payment.granted_token", params);
                token["deactivated_at"] = Value::Null;
                Ok(token)
            }
            ("POST", ["refunds"]) => {
                let intent = params["payment_intent"]
                    .as_str()
                    .ok_or_else(|| missing("payment_intent"))?;
                if !self.objects.contains_key(intent) {
                    return Err(not_found());
                }
                let part = params["amount"].as_str().and_then(|text| text.parse().ok());
                self.refund(intent, part);
                Ok(self.make_of("re", "refund", params))
            }
            ("POST", ["billing", "meters"]) => Ok(self.make_of("mtr", "billing.meter", params)),
            ("POST", ["billing", "meter_events"]) => self.count(params),
            ("DELETE", ["subscriptions", id]) => {
                let subscription = self.objects.get_mut(*id).ok_or_else(not_found)?;
                subscription["status"] = "canceled".into();
                Ok(subscription.clone())
            }
            ("GET", ["invoice_payments"]) => {
                let intent = params["payment"]["payment_intent"].clone();
                let mut found = self.all("invoice_payment");
                found.retain(|paid| paid["payment"]["payment_intent"] == intent);
                Ok(json!({ "object": "list", "data": found, "has_more": false }))
            }
            ("GET", [.., id]) if self.objects.contains_key(*id) => Ok(self.objects[*id].clone()),
            ("GET", [.., _, id])
                if id.contains('_') && !["checkout", "billing"].contains(&path[0]) =>
            {
                Err(not_found())
            }
            ("GET", ["checkout", "sessions"]) => Ok(self.list("checkout.session", params)),
            ("GET", ["subscriptions"]) => Ok(self.list("subscription", params)),
            ("GET", ["events"]) => Ok(self.list("event", params)),
            ("GET", ["customers"]) => Ok(self.list("customer", params)),
            _ => Err(not_found()),
        }
    }

    fn all(&self, kind: &str) -> Vec<Value> {
        let of = |object: &&Value| object["object"] == kind;
        let mut all: Vec<Value> = self.objects.values().filter(of).cloned().collect();
        all.sort_by_key(|object| object["nth"].as_u64());
        all
    }

    /// The newest first, by pages, narrowed by what Stripe narrows by.
    fn list(&self, kind: &str, params: &Value) -> Value {
        let mut all = self.all(kind);
        all.reverse();
        for key in [
            "customer",
            "status",
            "payment_intent",
            "subscription",
            "type",
        ] {
            match params[key].as_str() {
                None | Some("all") => {}
                Some(wanted) => all.retain(|object| object[key] == wanted),
            }
        }
        if let Some(since) = params["created"]["gte"].as_str() {
            let since: u64 = since.parse().unwrap();
            all.retain(|object| object["created"].as_u64() >= Some(since));
        }
        if let Some(after) = params["starting_after"].as_str() {
            let at = all.iter().position(|object| object["id"] == after);
            all.drain(..at.map_or(0, |at| at + 1));
        }
        let limit = params["limit"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or(10);
        let more = all.len() > limit;
        all.truncate(limit);
        json!({ "object": "list", "data": all, "has_more": more, "url": "/v1" })
    }

    fn make(&mut self, prefix: &str, mut object: Value) -> Value {
        self.made += 1;
        let id = format!("{prefix}_fake{:06}", self.made);
        object["id"] = id.clone().into();
        object["livemode"] = false.into();
        object["created"] = now().into();
        object["nth"] = self.made.into();
        self.objects.insert(id, object.clone());
        object
    }

    fn make_of(&mut self, prefix: &str, kind: &str, params: &Value) -> Value {
        let mut object = params.clone();
        if !object.is_object() {
            object = json!({});
        }
        object["object"] = kind.into();
        if object["metadata"].is_null() {
            object["metadata"] = json!({});
        }
        self.make(prefix, object)
    }

    fn make_price(&mut self, params: &Value) -> Answer {
        let amount = params["unit_amount"]
            .as_str()
            .and_then(|text| text.parse::<u64>().ok());
        let mut price = self.make_of("price", "price", params);
        price["unit_amount"] = amount.into();
        price["active"] = true.into();
        price["type"] = if price["recurring"].is_null() {
            "one_time"
        } else {
            "recurring"
        }
        .into();
        let id = price["id"].as_str().unwrap().to_owned();
        self.objects.insert(id, price.clone());
        Ok(price)
    }

    /// What the first line of a page comes to, and in which currency.
    fn total(&self, mode: &str, item: &Value) -> Result<(u64, Value), (u16, Value)> {
        let quantity: u64 = item["quantity"]
            .as_str()
            .and_then(|q| q.parse().ok())
            .unwrap_or(1);
        let total = match item["price"].as_str() {
            Some(id) => {
                let price = self.objects.get(id).ok_or_else(not_found)?;
                let recurring = price["type"] == "recurring";
                if recurring != (mode == "subscription") {
                    return Err(error(
                        400,
                        "invalid_request_error",
                        "",
                        "mode and price do not fit",
                    ));
                }
                let metered = price["recurring"]["usage_type"] == "metered";
                if metered && !item["quantity"].is_null() {
                    return Err(error(
                        400,
                        "invalid_request_error",
                        "",
                        "metered prices have no quantity",
                    ));
                }
                let cents = price["unit_amount"].as_u64().unwrap_or(0) * quantity;
                (if metered { 0 } else { cents }, price["currency"].clone())
            }
            None => {
                let data = &item["price_data"];
                let cents = data["unit_amount"]
                    .as_str()
                    .and_then(|text| text.parse::<u64>().ok());
                let cents = cents.ok_or_else(|| missing("line_items[0][price]"))?;
                (cents * quantity, data["currency"].clone())
            }
        };
        Ok(total)
    }

    fn make_session(&mut self, params: &Value) -> Answer {
        let mode = params["mode"].as_str().ok_or_else(|| missing("mode"))?;
        params["success_url"]
            .as_str()
            .ok_or_else(|| missing("success_url"))?;
        let (cents, currency) = self.total(mode, &params["line_items"]["0"])?;
        if mode == "payment" && currency == "usd" && cents < 50 {
            return Err(error(
                400,
                "invalid_request_error",
                "amount_too_small",
                "at least $0.50",
            ));
        }
        let ends = params["expires_at"]
            .as_str()
            .and_then(|text| text.parse::<u64>().ok());
        let ends = ends.unwrap_or(now() + 86_400);
        if !(now() + 1795..=now() + 86_405).contains(&ends) {
            return Err(error(
                400,
                "invalid_request_error",
                "",
                "expires_at must be 30 min to 24 h away",
            ));
        }
        if let Some(customer) = params["customer"].as_str()
            && !self.objects.contains_key(customer)
        {
            return Err(not_found());
        }
        let mut session = self.make(
            "cs_test",
            json!({
                "object": "checkout.session", "mode": mode, "status": "open", "payment_status": "unpaid",
                "amount_total": cents, "amount_subtotal": cents, "currency": currency, "expires_at": ends,
                "customer": params["customer"], "client_reference_id": params["client_reference_id"],
                "metadata": params["metadata"].as_object().cloned().unwrap_or_default(),
                "success_url": params["success_url"], "cancel_url": params["cancel_url"],
                "payment_intent": null, "subscription": null, "invoice": null, "asked": params,
            }),
        );
        let id = session["id"].as_str().unwrap().to_owned();
        session["url"] = format!("https://checkout.stripe.example/c/pay/{id}#fid").into();
        self.objects.insert(id, session.clone());
        Ok(session)
    }

    fn pay(&mut self, id: &str) {
        let session = self.objects[id].clone();
        assert_eq!(
            session["status"], "open",
            "only an open session can be paid"
        );
        let cents = session["amount_total"].as_u64().unwrap();
        let customer = match session["customer"].as_str() {
            Some(customer) => customer.to_owned(),
            None => {
                let made = self.make("cus", json!({ "object": "customer" }));
                made["id"].as_str().unwrap().to_owned()
            }
        };
        let asked = session["asked"].clone();
        let mut changes = json!({ "status": "complete", "url": null, "customer": customer });
        if session["mode"] == "subscription" {
            let subscription = self.make(
                "sub",
                json!({
                    "object": "subscription", "status": "active", "customer": customer,
                    "metadata": asked["subscription_data"]["metadata"].as_object().cloned().unwrap_or_default(),
                    "cancel_at_period_end": false, "latest_invoice": null,
                    "items": { "object": "list", "data": [{
                        "object": "subscription_item", "price": self.objects.get(asked["line_items"]["0"]["price"].as_str().unwrap()),
                        "current_period_start": now(), "current_period_end": now() + 30 * 86_400,
                    }] },
                }),
            );
            let sub = subscription["id"].as_str().unwrap().to_owned();
            changes["subscription"] = sub.clone().into();
            self.invoice_of(&sub, cents);
            changes["invoice"] = self.objects[&sub]["latest_invoice"].clone();
            changes["payment_status"] = if cents == 0 {
                "no_payment_required"
            } else {
                "paid"
            }
            .into();
        } else {
            let metadata = asked["payment_intent_data"]["metadata"].clone();
            let intent = self.charge(cents, &session["currency"], &customer, &metadata);
            changes["payment_intent"] = intent.into();
            changes["payment_status"] = "paid".into();
        }
        let session = self.objects.get_mut(id).unwrap().as_object_mut().unwrap();
        session.extend(changes.as_object().unwrap().clone());
    }

    fn charge(&mut self, cents: u64, currency: &Value, customer: &str, metadata: &Value) -> String {
        let charge = self.make(
            "ch",
            json!({ "object": "charge", "amount": cents, "amount_refunded": 0, "refunded": false, "disputed": false,
                "currency": currency, "paid": true, "status": "succeeded", "customer": customer }),
        );
        let intent = self.make(
            "pi",
            json!({ "object": "payment_intent", "status": "succeeded", "amount": cents, "amount_received": cents,
                "currency": currency, "latest_charge": charge["id"], "customer": customer, "metadata": metadata }),
        );
        let id = intent["id"].as_str().unwrap().to_owned();
        let charge = self
            .objects
            .get_mut(charge["id"].as_str().unwrap())
            .unwrap();
        charge["payment_intent"] = id.clone().into();
        id
    }

    fn invoice(&mut self, subscription: &str) -> String {
        let cents = self.objects[subscription]["items"]["data"][0]["price"]["unit_amount"].as_u64();
        self.invoice_of(subscription, cents.unwrap_or(0))
    }

    fn invoice_of(&mut self, subscription: &str, cents: u64) -> String {
        let customer = self.objects[subscription]["customer"]
            .as_str()
            .unwrap()
            .to_owned();
        let intent = self.charge(cents, &"usd".into(), &customer, &json!({}));
        let invoice = self.make(
            "in",
            json!({ "object": "invoice", "status": "paid", "customer": customer, "amount_paid": cents,
                "parent": { "type": "subscription_details", "subscription_details": { "subscription": subscription } } }),
        );
        self.make(
            "inpay",
            json!({ "object": "invoice_payment", "invoice": invoice["id"], "status": "paid",
                "payment": { "type": "payment_intent", "payment_intent": intent } }),
        );
        self.objects.get_mut(subscription).unwrap()["latest_invoice"] = invoice["id"].clone();
        intent
    }

    fn refund(&mut self, intent: &str, part: Option<u64>) {
        let charge = self.objects[intent]["latest_charge"]
            .as_str()
            .unwrap()
            .to_owned();
        let charge = self.objects.get_mut(&charge).unwrap();
        let all = charge["amount"].as_u64().unwrap();
        let back = charge["amount_refunded"].as_u64().unwrap() + part.unwrap_or(all);
        charge["amount_refunded"] = back.min(all).into();
        charge["refunded"] = (back >= all).into();
    }

    /// A PaymentIntent of a shared payment token: how it ends is in what the token was made of.
    fn make_intent(&mut self, params: &Value) -> Answer {
        let amount = params["amount"]
            .as_str()
            .and_then(|text| text.parse::<u64>().ok());
        let amount = amount.ok_or_else(|| missing("amount"))?;
        let currency = params["currency"].clone();
        if currency == "usd" && amount < 50 {
            return Err(error(
                400,
                "invalid_request_error",
                "amount_too_small",
                "at least $0.50",
            ));
        }
        let param = "shared_payment_granted_token";
        let nested = params["payment_method_data"][param].as_str();
        let token = params[param]
            .as_str()
            .or(nested)
            .ok_or_else(|| missing(param))?;
        let token = self.objects.get(token).cloned().ok_or_else(|| {
            error(
                400,
                "invalid_request_error",
                "resource_missing",
                "No such token",
            )
        })?;
        let most = token["usage_limits"]["max_amount"]
            .as_str()
            .and_then(|text| text.parse().ok());
        let card = token["payment_method"].as_str().unwrap_or("pm_card_visa");
        let declined = |code: &str| {
            let mut said = error(
                402,
                "card_error",
                "card_declined",
                "Your card was declined.",
            );
            said.1["error"]["decline_code"] = code.into();
            said
        };
        if !token["used"].is_null() || most.is_some_and(|most: u64| amount > most) {
            return Err(error(
                400,
                "invalid_request_error",
                "shared_payment_token_limit",
                "used up",
            ));
        }
        let metadata = params["metadata"].clone();
        let status = match card {
            "pm_card_chargeDeclined" => {
                let (status, mut said) = declined("generic_decline");
                let intent = self.make(
                    "pi",
                    json!({ "object": "payment_intent", "status": "requires_payment_method", "amount": amount,
                        "amount_received": 0, "currency": currency, "metadata": metadata }),
                );
                said["error"]["payment_intent"] = intent;
                return Err((status, said));
            }
            "pm_card_processing" => "processing",
            "pm_card_authenticationRequired" => "requires_action",
            _ => "succeeded",
        };
        let id = self.charge(amount, &currency, "", &metadata);
        let intent = self.objects.get_mut(&id).unwrap();
        intent["status"] = status.into();
        if status != "succeeded" {
            intent["amount_received"] = 0.into();
        }
        let intent = intent.clone();
        let token = token["id"].as_str().unwrap().to_owned();
        self.objects.get_mut(&token).unwrap()["used"] = true.into();
        Ok(intent)
    }

    fn count(&mut self, params: &Value) -> Answer {
        let name = params["event_name"]
            .as_str()
            .ok_or_else(|| missing("event_name"))?;
        let meters = self.all("billing.meter");
        if !meters.is_empty() && !meters.iter().any(|meter| meter["event_name"] == name) {
            return Err(error(
                400,
                "invalid_request_error",
                "no_meter",
                "No such meter",
            ));
        }
        let customer = params["payload"]["stripe_customer_id"].as_str();
        let customer = customer.ok_or_else(|| missing("payload[stripe_customer_id]"))?;
        if !self.objects.contains_key(customer) {
            return Err(error(
                400,
                "invalid_request_error",
                "no_customer",
                "No such customer",
            ));
        }
        let identifier = params["identifier"].clone();
        let known = self.all("billing.meter_event");
        if !identifier.is_null() && known.iter().any(|event| event["identifier"] == identifier) {
            return Err(error(
                400,
                "invalid_request_error",
                "duplicate_meter_event",
                "seen before",
            ));
        }
        Ok(self.make_of("mevt", "billing.meter_event", params))
    }

    /// With the objects in the place of their ids, as `expand[]` asks.
    fn expanded(&self, mut object: Value, expand: &Value) -> Value {
        let paths: Vec<&str> = match expand {
            Value::Object(listed) => listed.values().filter_map(Value::as_str).collect(),
            Value::String(one) => vec![one],
            _ => Vec::new(),
        };
        for path in paths {
            let parts: Vec<&str> = path.split('.').collect();
            self.expand(&mut object, &parts);
        }
        object
    }

    fn expand(&self, at: &mut Value, path: &[&str]) {
        let Some((part, rest)) = path.split_first() else {
            return;
        };
        if let Some(all) = at.as_array_mut() {
            all.iter_mut().for_each(|one| self.expand(one, path));
            return;
        }
        let Some(next) = at.as_object_mut().and_then(|object| object.get_mut(*part)) else {
            return;
        };
        if let Some(full) = next.as_str().and_then(|id| self.objects.get(id)) {
            *next = full.clone();
        }
        self.expand(next, rest);
    }
}

/// A form as nested objects; lists are objects with numbers for keys.
fn fields(form: &str) -> Value {
    let mut all = Value::Object(Map::new());
    for (nth, pair) in form.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (plain(name), plain(value));
        let mut at = &mut all;
        for part in name.split('[') {
            let part = part.trim_end_matches(']');
            let number = nth.to_string();
            at = &mut at[if part.is_empty() {
                number.as_str()
            } else {
                part
            }];
        }
        *at = value.into();
    }
    all
}

fn plain(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex = std::str::from_utf8(&rest[..2]).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &rest[2..];
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}
