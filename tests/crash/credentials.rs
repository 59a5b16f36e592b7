//! Calls that are paid for by proof: an invoice of a Lightning wallet, and its preimage. `serve` is killed at every write and
//! every send between the first demand and the answer that is given again.
//!
//! The wallet counts the money: the price arrived once. The tool counts its executions: one, and one more at most where a kill
//! interrupted one. The books know of one settlement, which was delivered.

use std::collections::HashSet;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tollkeeper::payment::{PayOutcome, PayReq, PaymentHandler, PaymentRequest};
use tollkeeper::rails::lightning::Network;
use tollkeeper::rails::lightning::fake_wallet::{FakeWallets, NotificationFault};
use tollkeeper::rails::lightning::nwc::{LightningNwcHandler, NwcSettings};

use super::books::Sold;
use super::kill_everywhere;
use super::line::Way;
use super::presenter::{Means, Presenter};
use super::run::{AT_ONCE, at_deaths, live_and_die, report};
use super::shop::{PRICE, Shop};

/// Two wallets and somebody who pays with one of them.
struct Purse {
    wallets: FakeWallets,
    payer: LightningNwcHandler,
    /// The invoices that were paid, and their payment hashes.
    paid: Mutex<Vec<(String, String)>>,
}

impl Purse {
    async fn open(shop: &Shop) -> Self {
        let wallets = FakeWallets::builder()
            .relays([shop.relay.url()])
            .balance_sats(1_000)
            .start()
            .await
            .unwrap();
        let connection = wallets.buyer().connection();
        let settings = NwcSettings::new().network(Network::Regtest);
        let payer = LightningNwcHandler::new(connection.reveal().parse().unwrap(), settings);
        Self {
            wallets,
            payer: payer.unwrap(),
            paid: Mutex::default(),
        }
    }
}

impl Means for Purse {
    const METHOD: &str = "lightning";

    async fn pay(&self, challenge: &Value) -> Value {
        let details = &challenge["request"]["methodDetails"];
        let text = |name: &str| details[name].as_str().unwrap().to_owned();
        let (invoice, hash) = (text("invoice"), text("paymentHash"));
        let amount = format!("{PRICE} sats").parse().unwrap();
        let pay_req = PayReq::new(invoice.clone());
        let pmi = self.payer.pmi().clone();
        let request = PaymentRequest::new(pmi, amount, pay_req, hash.clone());
        let paid = self.payer.handle(&request, &CancellationToken::new()).await;
        let PayOutcome::Paid(preimage) = paid.unwrap() else {
            panic!("the wallet did not pay");
        };
        self.paid.lock().unwrap().push((invoice, hash));
        json!({"preimage": preimage.reveal()})
    }

    /// Who has paid may be shown what it has paid, and nothing else.
    fn objection(&self, data: &Value) -> Option<String> {
        let paid = self.paid.lock().unwrap();
        let (known, _) = paid.first()?;
        let listed = |name: &str| data[name].as_array().into_iter().flatten();
        let options = listed("payment_options").map(|option| &option["pay_req"]);
        let challenges =
            listed("challenges").map(|challenge| &challenge["request"]["methodDetails"]["invoice"]);
        let others = options
            .chain(challenges)
            .any(|invoice| invoice != known.as_str());
        others.then(|| "was asked to pay a second time".to_owned())
    }
}

/// How the client goes about it.
#[derive(Debug, Clone, Copy)]
struct Manner {
    way: Way,
    /// The wallet tells the shop of what arrives. Otherwise the preimage is the only word for some seconds.
    told: bool,
    forgetful: bool,
}

/// One call, with a death at `point`; says how many deaths there were.
async fn play(manner: Manner, point: &str) -> Result<usize, String> {
    let _slot = AT_ONCE.acquire().await.unwrap();
    let mut shop = Shop::new().await;
    let purse = Purse::open(&shop).await;
    if !manner.told {
        let muted = Some(NotificationFault::None);
        purse.wallets.seller().change(|f| f.notifications = muted);
    }
    let held = purse.wallets.seller().balance_msat();
    let price = format!("tool:record={PRICE} sat");
    let flags = ["--lightning-network", "regtest", "--price", &price];
    shop.flags = flags.map(ToOwned::to_owned).to_vec();
    if manner.way == Way::Http {
        let listen = ["--listen", "127.0.0.1:0"].map(ToOwned::to_owned);
        shop.flags.extend(listen);
    }
    let connection = purse.wallets.seller().connection();
    let connection = connection.reveal().to_owned();
    shop.environment.push(("NWC_CONNECTION", connection));

    let (stories, mut started) = (Mutex::default(), 0);
    let client = Presenter::new(&shop, (manner.way, manner.forgetful), &purse, &stories);
    let deaths = [point.to_owned()];
    let outcome = live_and_die(&deaths, &shop, client.buy(), &stories, &mut started).await;
    let closed = shop.closed().await;

    let mut wrongs: Vec<String> = outcome.as_ref().err().cloned().into_iter().collect();
    wrongs.extend(closed.err());
    let entries = shop.entries(None).await;
    let arrived = purse.wallets.seller().balance_msat() - held;
    if arrived != PRICE * 1000 {
        wrongs.push(format!("{arrived} msat have arrived"));
    }
    let paid: HashSet<String> = {
        let paid = purse.paid.lock().unwrap();
        paid.iter().map(|(_, hash)| hash.clone()).collect()
    };
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

async fn everywhere(way: Way, told: bool, forgetful: bool) {
    let manner = Manner {
        way,
        told,
        forgetful,
    };
    // Quoted, issued, settled and claimed, delivered; the demand, the result, and the result twice more.
    kill_everywhere(4, 4, async |point| play(manner, &point).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_good_for_one_call_wherever_the_shop_dies() {
    everywhere(Way::Challenged, false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_over_http_is_good_for_one_call_wherever_the_shop_dies() {
    everywhere(Way::Http, false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_and_the_word_of_the_wallet_are_one_call_wherever_the_shop_dies() {
    everywhere(Way::Challenged, true, true).await;
}
