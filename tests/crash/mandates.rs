//! Calls that are paid for by mandate: a shared payment token that the shop charges at Stripe. `serve` is killed at every write
//! and every send around the charge.
//!
//! Stripe counts the charges: one, whatever is lost. The tool counts its executions: one, and one more at most where a kill
//! interrupted one. From the moment on which the books say that a token is being charged, nobody is offered anything else.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tollkeeper::ledger::{Entry, EntryState};

use super::books::Sold;
use super::fake_stripe::{FakeStripe, KEY, Prank};
use super::http_service::Reply;
use super::kill_everywhere;
use super::line::Way;
use super::presenter::{Means, Presenter};
use super::run::{AT_ONCE, at_deaths, live_and_die, report};
use super::shop::Shop;

/// In cents: the least that Stripe charges.
const PRICE: u64 = 50;
/// What asks Stripe for a charge.
const CHARGE: &str = "POST /v1/payment_intents";
/// The method of a charge in the books.
const SHARED_TOKEN: &str = "stripe-shared-token";

/// An agent's wallet, which grants a token for each challenge that it is shown.
struct Grants {
    stripe: FakeStripe,
    granted: AtomicUsize,
}

impl Means for Grants {
    const METHOD: &str = "stripe";

    async fn pay(&self, _challenge: &Value) -> Value {
        let nth = self.granted.fetch_add(1, Ordering::SeqCst);
        let id = format!("spt_{nth}");
        let limits = json!({"currency": "usd", "max_amount": PRICE});
        self.stripe.put(&json!({
            "id": id, "object": "shared_payment.granted_token", "payment_method": "pm_card_visa", "usage_limits": limits,
            "nth": 0, "created": 0,
        }));
        json!({"spt": id})
    }

    fn objection(&self, data: &Value) -> Option<String> {
        let asks = ["challenges", "payment_options"].iter().any(|name| {
            data[name]
                .as_array()
                .is_some_and(|listed| !listed.is_empty())
        });
        let charging = !self.stripe.asked(CHARGE).is_empty();
        (asks && charging).then(|| "was asked to pay while it is charged".to_owned())
    }
}

/// How the client and Stripe go about it.
#[derive(Debug, Clone, Copy)]
struct Manner {
    way: Way,
    forgetful: bool,
    /// So many answers to the charge are lost: it is made, and nobody is told.
    lost: usize,
    /// Stripe's search finds the charge: a restart may learn of it before the client asks again.
    found: bool,
}

/// One call, with a death at `point`; says how many deaths there were.
async fn play(manner: Manner, point: &str) -> Result<usize, String> {
    let _slot = AT_ONCE.acquire().await.unwrap();
    let mut shop = Shop::new().await;
    let grants = Grants {
        stripe: FakeStripe::start().await,
        granted: AtomicUsize::new(0),
    };
    for _ in 0..manner.lost {
        grants.stripe.prank(CHARGE, Prank::AfterDoing(Reply::Drop));
    }
    if !manner.found {
        grants.stripe.search_is_behind();
    }
    let config = format!(
        "[rails.stripe]\nbase_url = \"{}\"\nprofile = \"profile_test\"\n",
        grants.stripe.url()
    );
    std::fs::write(shop.path("shop.toml"), config).unwrap();
    // What a token is presented against is an offer of play money, which nobody pays.
    let flags = [
        "--allow-fake",
        "--price",
        "tool:record=0.50 usd",
        "--config",
        "shop.toml",
    ];
    shop.flags = flags.map(ToOwned::to_owned).to_vec();
    if manner.way == Way::Http {
        let listen = ["--listen", "127.0.0.1:0"].map(ToOwned::to_owned);
        shop.flags.extend(listen);
    }
    shop.environment.push(("STRIPE_SECRET_KEY", KEY.to_owned()));

    let (stories, mut started) = (Mutex::default(), 0);
    let client = Presenter::new(&shop, (manner.way, manner.forgetful), &grants, &stories);
    let deaths = [point.to_owned()];
    let outcome = live_and_die(&deaths, &shop, client.buy(), &stories, &mut started).await;
    let closed = shop.closed().await;

    let mut wrongs: Vec<String> = outcome.as_ref().err().cloned().into_iter().collect();
    wrongs.extend(closed.err());
    let entries = shop.entries(None).await;
    let charges = grants.stripe.all("payment_intent");
    if charges.len() != 1 || charges[0]["amount_received"] != PRICE {
        wrongs.push(format!("Stripe has charged {charges:?}"));
    }
    if !shop.paid().is_empty() {
        wrongs.push("the till was paid by somebody".to_owned());
    }
    wrongs.extend(offered_beside_a_charge(&entries));
    let order = |charge: &Value| {
        charge["metadata"]["tollkeeper_order"]
            .as_str()
            .map(Into::into)
    };
    let paid: HashSet<String> = charges.iter().filter_map(order).collect();
    let sold = Sold {
        price: PRICE,
        results: 1,
        paid,
        executed_by: shop.executed_by(),
        at_deaths: at_deaths(&shop, started).await,
        entries: entries.clone(),
        interrupted: 0,
    };
    wrongs.extend(sold.wrongs());
    match outcome {
        Ok(deaths) if wrongs.is_empty() => Ok(deaths),
        _ => Err(report(
            &format!("{manner:?} {point}"),
            &wrongs,
            &shop,
            &stories.into_inner().unwrap(),
            &entries,
            started,
        )),
    }
}

/// Nothing may be quoted once the books say that a token is being charged: only after it was refused, which none is here.
fn offered_beside_a_charge(entries: &[Entry]) -> Option<String> {
    let issued = |entry: &Entry| {
        let mut history = entry.history.iter();
        history
            .find(|moment| moment.state == EntryState::Issued)
            .map(|moment| moment.at)
    };
    let charges = entries
        .iter()
        .filter(|entry| entry.pmi.as_str() == SHARED_TOKEN);
    let began = charges.filter_map(issued).min()?;
    let late = entries.iter().find(|entry| entry.quoted_at > began)?;
    Some(format!(
        "{} was offered while a token was being charged",
        late.id.short()
    ))
}

async fn everywhere(manner: Manner) {
    // The offer quoted and issued, and ended; the charge quoted, issued, settled and claimed, delivered. The demand, the result,
    // and the result twice more.
    kill_everywhere(7, 4, async |point| play(manner, &point).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_charged_once_for_one_call_wherever_the_shop_dies() {
    everywhere(Manner {
        way: Way::Http,
        forgetful: false,
        lost: 0,
        found: false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_for_money_while_a_token_is_charged_wherever_the_shop_dies() {
    everywhere(Manner {
        way: Way::Challenged,
        forgetful: true,
        lost: 0,
        found: true,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_without_an_answer_is_one_charge_wherever_the_shop_dies() {
    everywhere(Manner {
        way: Way::Challenged,
        forgetful: true,
        lost: 3,
        found: false,
    })
    .await;
}
