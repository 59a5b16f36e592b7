//! Hooks hear of what is on the books, and of nothing else; they hold up nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tollkeeper::payment::{ObservedPayment, PaymentObserver};
use tollkeeper::testing::Harness;

use super::PRICES;
use super::books::{self, kinds};

#[derive(Debug, Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn note(&self, what: &str, payment: &ObservedPayment) {
        let line = format!(
            "{what} {} {} {}",
            payment.tool().unwrap_or_default(),
            payment.amount,
            payment.payer.short()
        );
        assert!(payment.reference.is_some());
        self.0.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl PaymentObserver for Heard {
    fn challenge_created(&self, payment: &ObservedPayment) {
        self.note("created", payment);
    }

    fn payment_succeeded(&self, payment: &ObservedPayment) {
        self.note("paid", payment);
    }

    fn payment_failed(&self, payment: &ObservedPayment, reason: &str) {
        self.note(reason, payment);
    }
}

/// The worst that a hook can do.
#[derive(Debug)]
struct Panics;

impl PaymentObserver for Panics {
    fn challenge_created(&self, _: &ObservedPayment) {
        panic!("scripted")
    }

    fn payment_succeeded(&self, _: &ObservedPayment) {
        panic!("scripted")
    }
}

#[tokio::test(start_paused = true)]
async fn each_payment_is_told_once_and_a_hook_that_panics_stops_nothing() {
    let heard = Heard::default();
    let listener = heard.clone();
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .payments(|payments| payments.observer(Panics).observer(listener))
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    assert_eq!(heard.take(), ["created add 7 sats 01010101"]);
    books::settle(&harness, 0).await;
    assert_eq!(
        kinds(&books::now(&client).await),
        ["payment_accepted", "result"]
    );
    // The wallet says it again.
    books::settle(&harness, 0).await;
    books::now(&client).await;
    assert_eq!(heard.take(), ["paid add 7 sats 01010101"]);
    client.call_tool(2, "add", json!({"n": 2})).await.unwrap();
    tokio::time::sleep(Duration::from_secs(700)).await;
    let told = heard.take();
    assert_eq!(
        told,
        ["created add 7 sats 01010101", "expired add 7 sats 01010101"]
    );
    books::balance(&harness).await;
}
