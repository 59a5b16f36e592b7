//! Calls with a price by use: the most that they may use is paid for, they run, and the rest is given back. `serve` is killed
//! at every write and every send of two of them: the first is paid at the till, the second from what the first left.
//!
//! The till counts the money, once; the account has what was not used, moved onto it once for each call; nothing is charged
//! above what was reserved; the tool ran once for each call, and once more at most where a kill interrupted it.

use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::time::{Duration, sleep, timeout};
use tollkeeper::ledger::{Accounts, Entry, EntryState, MovementKind, SqliteLedger};
use tollkeeper::payment::Unit;

use super::kill_everywhere;
use super::line::{Line, Way};
use super::run::{AT_ONCE, at_deaths, live_and_die, report};
use super::shop::{PATIENCE, Shop};

/// What is reserved for each call, by its limit, at a sat for each result.
const RESERVED: [u64; 2] = [9, 5];
/// What each of them uses.
const USED: u64 = 4;

/// Two calls, one after the other, of somebody who pays at the till once.
struct Buyer<'r> {
    shop: &'r Shop,
    line: Line<'r>,
    stories: &'r Mutex<Vec<String>>,
    paid: Option<String>,
}

impl Buyer<'_> {
    async fn buy(mut self) -> Result<(), String> {
        for (call, reserved) in RESERVED.into_iter().enumerate() {
            let served = timeout(PATIENCE, self.until_served(call, reserved)).await;
            served.unwrap_or_else(|_| Err(format!("was turned away with call {call}")))?;
        }
        Ok(())
    }

    async fn until_served(&mut self, call: usize, limit: u64) -> Result<(), String> {
        let arguments = json!({"call": call, "limit": limit, "used": USED});
        let params = json!({"name": "record", "arguments": arguments});
        loop {
            let request = self.line.call(&params);
            let answer = self.line.ask(&request).await;
            self.tell(&format!("was answered {answer}"));
            if answer["result"].is_object() {
                let again = self.line.ask(&request).await;
                return if again == answer {
                    Ok(())
                } else {
                    Err(format!("got another result for the same request: {again}"))
                };
            }
            match &answer["error"]["data"]["payment_options"][0] {
                Value::Null => sleep(Duration::from_millis(150)).await,
                offer => self.pay(offer, limit)?,
            }
        }
    }

    fn pay(&mut self, offer: &Value, limit: u64) -> Result<(), String> {
        let reference = offer["pay_req"].as_str().unwrap().strip_prefix("till:");
        let reference = reference.unwrap();
        if offer["amount"] != limit || limit != RESERVED[0] {
            return Err(format!("was asked to pay {}", offer["amount"]));
        }
        match &self.paid {
            Some(paid) if paid == reference => {}
            Some(_) => return Err("was asked to pay a second time".to_owned()),
            None => {
                self.shop.pay(reference);
                self.paid = Some(reference.to_owned());
            }
        }
        Ok(())
    }

    fn tell(&self, what: &str) {
        let at = self.shop.began.elapsed().as_millis();
        let mut stories = self.stories.lock().unwrap();
        stories.push(format!("{at:>6} ms  the client {what}"));
    }
}

/// Everything that is wrong with the books.
async fn wrongs(shop: &Shop, at_deaths: &[(usize, Vec<Entry>)], entries: &[Entry]) -> Vec<String> {
    let mut wrongs = Vec::new();
    let mut claim = |holds: bool, wrong: String| {
        if !holds {
            wrongs.push(wrong);
        }
    };
    claim(
        shop.paid().len() == 1,
        format!("{:?} were paid", shop.paid()),
    );
    let settled = entries.iter().filter(|entry| entry.settlement.is_some());
    let mut charged: Vec<(&str, u64, EntryState)> = settled
        .map(|entry| (entry.pmi.as_str(), entry.amount.value(), entry.state))
        .collect();
    charged.sort_by_key(|(_, amount, _)| std::cmp::Reverse(*amount));
    let delivered = EntryState::Delivered;
    let [first, second] = RESERVED;
    claim(
        charged == [("fake", first, delivered), ("balance", second, delivered)],
        format!("the books say {charged:?}"),
    );

    for (call, reserved) in RESERVED.into_iter().enumerate() {
        let executions = shop.executions_of(call);
        let interrupted = at_deaths
            .iter()
            .flat_map(|(_, entries)| entries)
            .filter(|entry| entry.state == EntryState::Claimed && entry.amount.value() == reserved)
            .count();
        claim(
            (1..=1 + interrupted).contains(&executions),
            format!("call {call}: {executions} executions, {interrupted} interrupted"),
        );
    }

    let ledger: SqliteLedger = Shop::ledger_in(&shop.path("books.db"));
    let client = entries[0].client;
    let account = ledger.account(&client, &Unit::SATS).await.unwrap();
    let left = account.map(|account| account.amount.value());
    claim(
        left == Some(first - 2 * USED),
        format!("{left:?} is on the account"),
    );
    let movements = ledger
        .movements(&client, &Unit::SATS, 0, 100)
        .await
        .unwrap();
    let moved: Vec<(MovementKind, u64, u64)> = movements
        .iter()
        .map(|movement| (movement.kind, movement.on, movement.off))
        .collect();
    let expected = [
        (MovementKind::Unused, first - USED, 0),
        (MovementKind::Draw, 0, second),
        (MovementKind::Unused, second - USED, 0),
    ];
    claim(moved == expected, format!("moved: {moved:?}"));
    wrongs
}

/// Two calls, with a death at `point`; says how many deaths there were.
async fn play(point: &str) -> Result<usize, String> {
    let _slot = AT_ONCE.acquire().await.unwrap();
    let mut shop = Shop::new().await;
    let config = "[balance]\nmin_top_up = 10\nmax_top_up = 1000\n\n[[price]]\ncapability = \"tool:record\"\namount = 1\n\
        model = \"per_result\"\nmost = 20\nargument = \"limit\"\n";
    std::fs::write(shop.path("shop.toml"), config).unwrap();
    let flags = ["--allow-fake", "--config", "shop.toml"];
    shop.flags = flags.map(ToOwned::to_owned).to_vec();

    let (stories, mut started) = (Mutex::default(), 0);
    let buyer = Buyer {
        shop: &shop,
        line: Line::new(&shop, Way::Gated),
        stories: &stories,
        paid: None,
    };
    let deaths = [point.to_owned()];
    let outcome = live_and_die(&deaths, &shop, buyer.buy(), &stories, &mut started).await;
    let closed = shop.closed().await;
    let mut all: Vec<String> = outcome.as_ref().err().cloned().into_iter().collect();
    all.extend(closed.err());
    let entries = shop.entries(None).await;
    if outcome.is_ok() {
        all.extend(wrongs(&shop, &at_deaths(&shop, started).await, &entries).await);
    }
    match outcome {
        Ok(deaths) if all.is_empty() => Ok(deaths),
        _ => Err(report(
            point,
            &all,
            &shop,
            &stories.into_inner().unwrap(),
            &entries,
            started,
        )),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_did_not_use_comes_back_once_wherever_the_shop_dies() {
    // Quoted, issued, settled, claimed, ended with the rest; drawn, ended with the rest. The demand and two results, each twice.
    kill_everywhere(7, 5, async |point| play(&point).await).await;
}
