//! From a request to its result, on the [books](super::books): what an honest wallet would do. What is asked may be
//! nonsense; the answer then says so.

use std::time::Duration;

use nostr::hashes::hex::FromHex;
use serde_json::{Value, json};

use super::books::{Books, Direction, Moved, Paid, Query, State, Transaction, WalletIndex};
use super::faults::{Faults, InvoiceFault, NotificationFault};
use super::invoice::{
    Description, PaymentHash, Signer, Wanted, another, payment_hash_of, random_32,
};
use super::method::{Method, Refusal};
use crate::payment::Timestamp;
use crate::rails::lightning::Network;

/// How long an invoice stands unless asked otherwise.
const EXPIRY: u64 = 3600;
/// Longest that it may stand.
const LONGEST_EXPIRY: u64 = 365 * 86_400;
/// Most transactions in one answer.
const PAGE: u64 = 50;
/// Most bytes of them: an encrypted message has room for 65,408.
const PAGE_BYTES: usize = 48 * 1024;
/// What the wallet notifies of.
pub(super) const NOTIFICATIONS: [&str; 2] = [PAYMENT_RECEIVED, PAYMENT_SENT];
/// Notification: an invoice was paid.
pub(super) const PAYMENT_RECEIVED: &str = "payment_received";
/// Notification: a payment has arrived.
pub(super) const PAYMENT_SENT: &str = "payment_sent";

/// What came of a request.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) result: Value,
    /// An invoice was made.
    pub(super) made: Option<PaymentHash>,
    /// Money moved.
    pub(super) moved: Option<Moved>,
    /// A payment is pending; the result is for when it has arrived.
    pub(super) held: Option<PaymentHash>,
}

impl From<Value> for Done {
    fn from(result: Value) -> Self {
        Self {
            result,
            made: None,
            moved: None,
            held: None,
        }
    }
}

/// A wallet at the moment of a request.
pub(super) struct Desk<'a> {
    pub(super) wallet: WalletIndex,
    pub(super) name: &'a str,
    pub(super) books: &'a mut Books,
    pub(super) signer: &'a Signer,
    pub(super) network: Network,
    pub(super) faults: &'a Faults,
    pub(super) now: Timestamp,
}

impl Desk<'_> {
    pub(super) fn answer(&mut self, method: Method, params: &Value) -> Result<Done, Refusal> {
        match method {
            Method::PayInvoice => self.pay_invoice(params),
            Method::MakeInvoice => self.make_invoice(params),
            Method::LookupInvoice => self.lookup_invoice(params).map(Done::from),
            Method::ListTransactions => self.list_transactions(params).map(Done::from),
            Method::GetBalance => {
                Ok(json!({ "balance": self.books.balance_msat(self.wallet) }).into())
            }
            Method::GetInfo => Ok(self.get_info().into()),
        }
    }

    fn make_invoice(&mut self, params: &Value) -> Result<Done, Refusal> {
        let amount = params["amount"].as_u64().ok_or(Refusal::Other)?;
        let description = match (&params["description"], &params["description_hash"]) {
            (_, Value::String(hash)) => {
                Description::Hash(<[u8; 32]>::from_hex(hash).map_err(|_| Refusal::Other)?)
            }
            (Value::String(text), _) => Description::Text(text.clone()),
            _ => Description::Text(String::new()),
        };
        let expiry = match &params["expiry"] {
            Value::Null => EXPIRY,
            secs => secs.as_u64().ok_or(Refusal::Other)?,
        };
        let mut wanted = Wanted {
            network: self.network,
            amount_msat: (amount > 0).then_some(amount),
            description,
            made_at: self.now,
            expiry: Duration::from_secs(expiry.min(LONGEST_EXPIRY)),
        };
        match self.faults.invoice {
            Some(InvoiceFault::WrongAmount) => wanted.amount_msat = amount.checked_mul(10),
            Some(InvoiceFault::NoAmount) => wanted.amount_msat = None,
            Some(InvoiceFault::OtherNetwork) => wanted.network = another(self.network),
            Some(InvoiceFault::Expired) => {
                wanted.made_at = self.now.minus(wanted.expiry + Duration::from_secs(1));
            }
            Some(InvoiceFault::SameAgain) => {
                if let Some(before) = self.books.newest_invoice(self.wallet) {
                    return Ok(self.transaction(before).into());
                }
            }
            Some(InvoiceFault::OtherHash) | None => {}
        }
        let made = self.signer.make(wanted.clone())?;
        let transaction = self.books.add_invoice(self.wallet, wanted, made)?;
        let mut result = self.transaction(&transaction);
        if self.faults.invoice == Some(InvoiceFault::OtherHash) {
            result["payment_hash"] = hex(&random_32()).into();
        }
        Ok(Done {
            made: Some(transaction.payment_hash),
            ..result.into()
        })
    }

    fn pay_invoice(&mut self, params: &Value) -> Result<Done, Refusal> {
        let invoice = params["invoice"].as_str().ok_or(Refusal::Other)?;
        let amount = match &params["amount"] {
            Value::Null => None,
            amount => Some(amount.as_u64().ok_or(Refusal::Other)?),
        };
        let hold = self.faults.hold.is_some();
        let paid = self
            .books
            .pay(self.wallet, invoice, amount, hold, self.now)?;
        let (hash, moved, held) = match paid {
            Paid::Settled(moved) => (moved.payment_hash, Some(moved), None),
            Paid::Held(hash) => (hash, None, Some(hash)),
        };
        let payment = self.books.payment(self.wallet, &hash);
        let preimage = self.preimage(payment.ok_or(Refusal::Internal)?);
        Ok(Done {
            moved,
            held,
            ..json!({ "preimage": preimage, "fees_paid": 0 }).into()
        })
    }

    fn lookup_invoice(&self, params: &Value) -> Result<Value, Refusal> {
        let hash = match (&params["payment_hash"], &params["invoice"]) {
            (Value::String(hash), _) => <[u8; 32]>::from_hex(hash).ok(),
            (_, Value::String(invoice)) => payment_hash_of(invoice),
            _ => None,
        };
        let hash = hash.ok_or(Refusal::Other)?;
        let found = self.books.find(self.wallet, &hash);
        Ok(self.transaction(found.ok_or(Refusal::NotFound)?))
    }

    fn list_transactions(&self, params: &Value) -> Result<Value, Refusal> {
        let number = |name: &str| match &params[name] {
            Value::Null => Ok(None),
            number => number.as_u64().map(Some).ok_or(Refusal::Other),
        };
        let direction = match params["type"].as_str() {
            None => None,
            Some("incoming") => Some(Direction::Incoming),
            Some("outgoing") => Some(Direction::Outgoing),
            Some(_) => return Err(Refusal::Other),
        };
        let until = number("until")?.unwrap_or(u64::MAX / 2000);
        let limit = number("limit")?.unwrap_or(PAGE).min(PAGE);
        let query = Query {
            from: Timestamp::from_secs(number("from")?.unwrap_or(0)),
            // To the end of that second.
            until: Timestamp::from_secs(until).plus(Duration::from_millis(999)),
            unpaid: params["unpaid"].as_bool().unwrap_or(false),
            direction,
            offset: usize::try_from(number("offset")?.unwrap_or(0)).unwrap_or(usize::MAX),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let mut bytes = 0;
        let rows: Vec<Value> = self
            .books
            .list(self.wallet, &query, self.now)
            .into_iter()
            .map(|row| self.transaction(row))
            .take_while(|row| {
                bytes += row.to_string().len();
                bytes <= PAGE_BYTES
            })
            .collect();
        Ok(json!({ "transactions": rows }))
    }

    fn get_info(&self) -> Value {
        let methods: Vec<&str> = methods(self.faults).collect();
        let notifications = match self.faults.notifications {
            Some(NotificationFault::Unsupported) => &[],
            _ => &NOTIFICATIONS[..],
        };
        json!({
            "alias": format!("not money ({})", self.name),
            "color": "#000000",
            "pubkey": self.signer.node_id().to_string(),
            "network": self.network.as_str(),
            "block_height": 1,
            "block_hash": "00".repeat(32),
            "methods": methods,
            "notifications": notifications,
        })
    }

    /// A transaction as NIP-47 has it.
    pub(super) fn transaction(&self, transaction: &Transaction) -> Value {
        let state = transaction.state_at(self.now);
        let mut value = json!({
            "type": match transaction.direction {
                Direction::Incoming => "incoming",
                Direction::Outgoing => "outgoing",
            },
            "state": match state {
                State::Pending => "pending",
                State::Settled => "settled",
                State::Expired => "expired",
                State::Failed => "failed",
            },
            "invoice": transaction.invoice,
            "payment_hash": hex(&transaction.payment_hash),
            "amount": transaction.amount_msat.unwrap_or(0),
            "fees_paid": 0,
            "created_at": transaction.created_at.as_secs(),
            "expires_at": transaction.expires_at.as_secs(),
        });
        match &transaction.wanted.description {
            Description::Text(text) => value["description"] = text.as_str().into(),
            Description::Hash(hash) => value["description_hash"] = hex(hash).into(),
        }
        if state == State::Settled {
            value["preimage"] = self.preimage(transaction).into();
            value["settled_at"] = transaction.settled_at.map(Timestamp::as_secs).into();
        }
        value
    }

    fn preimage(&self, transaction: &Transaction) -> String {
        if self.faults.wrong_preimage {
            return hex(&random_32());
        }
        hex(&transaction.preimage)
    }
}

/// What a wallet with these faults says that it can do.
pub(super) fn methods(faults: &Faults) -> impl Iterator<Item = &'static str> {
    let known = Method::ALL
        .into_iter()
        .filter(|method| !faults.without.contains(*method));
    known.map(Method::as_str)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    struct Wallets {
        books: Books,
        signer: Signer,
        faults: Faults,
        now: Timestamp,
    }

    impl Wallets {
        fn new() -> Self {
            Self {
                books: Books::new([0, 1_000_000]),
                signer: Signer::generate(),
                faults: Faults::default(),
                now: NOW,
            }
        }

        fn ask(&mut self, wallet: usize, method: Method, params: &Value) -> Result<Value, Refusal> {
            let mut desk = Desk {
                wallet,
                name: "seller",
                books: &mut self.books,
                signer: &self.signer,
                network: Network::Regtest,
                faults: &self.faults,
                now: self.now,
            };
            desk.answer(method, params).map(|done| done.result)
        }

        fn make(&mut self) -> Value {
            let params = json!({"amount": 7_000, "description": "tool:x", "expiry": 60});
            self.ask(0, Method::MakeInvoice, &params).unwrap()
        }
    }

    #[test]
    fn an_invoice_is_made_paid_and_looked_up() {
        let mut wallets = Wallets::new();
        let made = wallets.make();
        assert_eq!(
            (&made["state"], &made["amount"]),
            (&json!("pending"), &json!(7_000))
        );
        assert_eq!(made["preimage"], Value::Null, "only who pays learns it");
        let by_hash = json!({"payment_hash": made["payment_hash"]});
        let by_invoice = json!({"invoice": made["invoice"]});
        assert_eq!(
            wallets.ask(0, Method::LookupInvoice, &by_hash).unwrap(),
            made
        );
        assert_eq!(
            wallets.ask(0, Method::LookupInvoice, &by_invoice).unwrap(),
            made
        );
        let elsewhere = wallets.ask(1, Method::LookupInvoice, &by_hash);
        assert_eq!(elsewhere, Err(Refusal::NotFound));

        let paid = wallets.ask(1, Method::PayInvoice, &by_invoice).unwrap();
        let balance = wallets.ask(0, Method::GetBalance, &Value::Null).unwrap();
        assert_eq!(balance, json!({"balance": 7_000}));
        for (wallet, direction) in [(0, "incoming"), (1, "outgoing")] {
            let seen = wallets
                .ask(wallet, Method::LookupInvoice, &by_hash)
                .unwrap();
            assert_eq!(seen["state"], "settled");
            assert_eq!(seen["type"], direction);
            assert_eq!(seen["preimage"], paid["preimage"]);
            assert_eq!(seen["settled_at"], NOW.as_secs());
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let mut wallets = Wallets::new();
        for (method, params) in [
            (Method::MakeInvoice, json!({})),
            (Method::MakeInvoice, json!({"amount": "7000"})),
            (Method::MakeInvoice, json!({"amount": 1, "expiry": -1})),
            (
                Method::MakeInvoice,
                json!({"amount": 1, "description_hash": "xyz"}),
            ),
            (Method::PayInvoice, json!({"invoice": 7})),
            (Method::PayInvoice, json!({"invoice": "lnbc1"})),
            (Method::LookupInvoice, json!([])),
            (Method::LookupInvoice, json!({"payment_hash": "00"})),
            (Method::ListTransactions, json!({"type": "both"})),
            (Method::ListTransactions, json!({"limit": "all"})),
        ] {
            let answer = wallets.ask(0, method, &params);
            assert_eq!(answer, Err(Refusal::Other), "{method} {params}");
        }
    }

    #[test]
    fn a_list_comes_in_pages_that_fit_into_a_message() {
        let mut wallets = Wallets::new();
        let description = "x".repeat(600);
        for _ in 0..120 {
            let params = json!({"amount": 1_000, "description": description});
            wallets.ask(0, Method::MakeInvoice, &params).unwrap();
        }
        let mut hashes = std::collections::HashSet::new();
        let mut pages = 0;
        loop {
            let params = json!({"unpaid": true, "offset": hashes.len(), "limit": 1_000});
            let page = wallets.ask(0, Method::ListTransactions, &params).unwrap();
            assert!(page.to_string().len() < 65_000);
            let rows = page["transactions"].as_array().unwrap();
            if rows.is_empty() {
                break;
            }
            assert!(rows.len() <= 50);
            hashes.extend(rows.iter().map(|row| row["payment_hash"].to_string()));
            pages += 1;
        }
        assert_eq!(hashes.len(), 120);
        assert!(pages > 2);
        let settled = wallets
            .ask(0, Method::ListTransactions, &json!({}))
            .unwrap();
        assert_eq!(settled["transactions"], json!([]));
    }

    #[test]
    fn invoices_are_wrong_as_ordered() {
        use lightning_invoice::Bolt11Invoice;
        let mut wallets = Wallets::new();
        let honest = wallets.make();
        let mut read = |fault| {
            wallets.faults.invoice = Some(fault);
            let made = wallets.make();
            let invoice: Bolt11Invoice = made["invoice"].as_str().unwrap().parse().unwrap();
            (invoice, made)
        };
        let (invoice, _) = read(InvoiceFault::WrongAmount);
        assert_eq!(invoice.amount_milli_satoshis(), Some(70_000));
        let (invoice, _) = read(InvoiceFault::NoAmount);
        assert_eq!(invoice.amount_milli_satoshis(), None);
        let (invoice, made) = read(InvoiceFault::OtherHash);
        assert_ne!(made["payment_hash"], invoice.payment_hash().to_string());
        let (invoice, _) = read(InvoiceFault::Expired);
        assert!(invoice.would_expire(Duration::from_millis(NOW.as_millis())));
        let (invoice, _) = read(InvoiceFault::OtherNetwork);
        assert!(invoice.to_string().starts_with("lntbs"));
        let (invoice, _) = read(InvoiceFault::SameAgain);
        assert!(invoice.to_string().starts_with("lntbs"), "the one before");
        assert_ne!(honest["invoice"], invoice.to_string());
    }

    #[test]
    fn the_wallet_says_what_it_can_do() {
        let mut wallets = Wallets::new();
        wallets.faults.without = Method::ListTransactions.into();
        let info = wallets.ask(0, Method::GetInfo, &Value::Null).unwrap();
        assert_eq!(info["network"], "regtest");
        let methods = info["methods"].as_array().unwrap();
        assert_eq!(methods.len(), 5);
        assert!(!methods.contains(&json!("list_transactions")));
    }
}
